"""The loop: what it does in which order, and what a kill at any moment leaves."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from steerward.jobs.rsf.origin import Origin, check_origin
from steerward.jobs.rsf.ports import TrainingWork, Turns
from steerward.jobs.rsf.samples import read_samples
from steerward.jobs.rsf.workspace import Workspace
from steerward.protocol.errors import (
    InputTooLong,
    InvalidRequest,
    NotReady,
    SteerwardError,
    TrainingFailed,
)
from tests.jobs.rsf.playing import Fuse, Game, Killed, settings
from tests.rsf_jobs import Selected, selected_in

pytestmark = pytest.mark.anyio


def game(folder: Path, *, fuse: Fuse | None = None, **changes: object) -> Game:
    return Game(folder, settings(**changes), fuse or Fuse())


def all_selected(folder: Path, iterations: int = 2) -> list[Selected]:
    return [selected_in(folder, number) for number in range(1, iterations + 1)]


async def test_steps_follow_each_other_and_all_is_kept(tmp_path: Path) -> None:
    played = game(tmp_path)
    outcome = await played.loop().run()
    assert played.notes.steps == [
        ("waiting", 0),
        ("evaluating", 0),
        *(("sampling", 1), ("selecting", 1), ("training", 1), ("swapping", 1), ("evaluating", 1)),
        *(("sampling", 2), ("selecting", 2), ("training", 2), ("swapping", 2), ("evaluating", 2)),
        *([("swapping", 1)] if outcome.iteration == 1 else []),
        ("reporting", outcome.iteration),
        ("done", outcome.iteration),
    ]
    assert played.trainer.trained == 2
    _, first, second = played.history
    assert (first["sampled"], first["accepted"], first["sampled_tokens"]) == (60, 20, 300)
    assert (first["loss"], first["kl"], first["trained_tokens"]) == (0.5, 0.01, 100)
    assert outcome.sampled_tokens == 600
    assert outcome.trained_tokens == 200
    for number, known in ((1, first), (2, second)):
        rows = read_samples(Workspace(tmp_path).iteration(number).samples)
        assert {row.policy_weight_version for row in rows} == {
            "base" if number == 1 else first["weight_version"]
        }
        # Told with its score, which is known after it was published.
        told = (known["weight_version"], known["direction_score"])
        assert played.notes.checkpoints[number] == told
        assert known["direction_score"] is not None
    left = sorted(path.name for path in Workspace(tmp_path).iteration(1).path.iterdir())
    assert left == [
        *("evaluation.parquet", "policy", "progress.json", "samples.parquet", "selected.jsonl")
    ]


@pytest.mark.parametrize(("measured", "num_moments"), [(0, 25), (3, 3)], ids=["plain", "measured"])
async def test_a_kill_at_any_moment_changes_nothing_but_the_time(
    tmp_path: Path, measured: int, num_moments: int
) -> None:
    whole = game(tmp_path / "whole", evaluation_prompts=measured)
    outcome = await whole.loop().run()
    count = whole.fuse.count
    assert count > 100
    for moment in range(1, count, count // num_moments):
        folder = tmp_path / f"{moment}"
        with pytest.raises(Killed):
            await game(folder, fuse=Fuse(moment), evaluation_prompts=measured).loop().run()
        again = game(folder, evaluation_prompts=measured)
        policy = Workspace(folder).iteration(outcome.iteration).policy
        assert await again.loop().run() == dataclasses.replace(outcome, folder=policy), moment
        assert all_selected(folder) == all_selected(whole.folder), moment
        assert again.history == whole.history, moment
        assert not [*folder.rglob(".*")], moment


async def test_many_kills_in_a_row_lose_nothing(tmp_path: Path) -> None:
    whole = game(tmp_path / "whole", evaluation_prompts=0)
    await whole.loop().run()
    folder, kills = tmp_path / "killed", 0
    again = game(folder, evaluation_prompts=0)
    while kills < 20:
        again = game(folder, fuse=Fuse(110), evaluation_prompts=0)
        try:
            await again.loop().run()
        except Killed:
            kills += 1
            continue
        break
    assert 2 <= kills < 20
    assert all_selected(folder) == all_selected(whole.folder)
    assert again.history == whole.history
    assert again.notes.last is not None
    for one in again.notes.last.history[1:]:
        assert one.seconds.keys() >= {"sampling", "selection", "training", "swap"}


async def test_a_loop_that_is_done_is_done_at_once(tmp_path: Path) -> None:
    first = game(tmp_path, evaluation_prompts=0)
    outcome = await first.loop().run()
    again = game(tmp_path, evaluation_prompts=0)
    assert await again.loop().run() == outcome
    assert (again.policy.drawn, again.trainer.trained) == (0, 0)
    # A server that was started anew serves nothing of it, so it is published again.
    assert again.policy.published == [outcome.weight_version]
    assert first.notes.last is not None
    assert again.notes.last is not None
    assert again.notes.last.history == first.notes.last.history


async def test_the_policy_of_the_iteration_before_is_served_before_it_is_sampled(
    tmp_path: Path,
) -> None:
    def killed(work: TrainingWork) -> None:
        if "iteration-002" in str(work.out):
            raise Killed

    first = game(tmp_path, evaluation_prompts=0)
    first.trainer.before = killed
    with pytest.raises(Killed):
        await first.loop().run()
    # As if the kill had come in the middle of the sampling of the second iteration.
    folder = Workspace(tmp_path).iteration(2)
    for path in (folder.samples, folder.selected, folder.path / "progress.json"):
        path.unlink()
    again = game(tmp_path, evaluation_prompts=0)
    await again.loop().run()
    versions = {row.policy_weight_version for row in read_samples(folder.samples)}
    assert versions == {again.policy.published[0]} != {"base"}


async def test_a_trainer_that_was_killed_is_started_again(tmp_path: Path) -> None:
    starts: list[int] = []

    def killed(_: TrainingWork) -> None:
        starts.append(1)
        if len(starts) < 3:
            error = TrainingFailed("fine-tuning ended: killed by signal 9: out of memory?")
            error.was_killed = True
            raise error

    played = game(tmp_path, evaluation_prompts=0, iterations=1)
    played.trainer.before = killed
    await played.loop().run()
    assert len(starts) == 3
    assert [message for message in played.notes.warnings() if "started again" in message] == [
        "fine-tuning ended: killed by signal 9: out of memory?; it is started again"
    ] * 2


async def test_a_trainer_that_is_killed_each_time_fails_the_job_with_the_reason(
    tmp_path: Path,
) -> None:
    starts: list[int] = []

    def killed(_: TrainingWork) -> None:
        starts.append(1)
        error = TrainingFailed("killed by signal 9")
        error.was_killed = True
        raise error

    played = game(tmp_path)
    played.trainer.before = killed
    with pytest.raises(TrainingFailed, match="killed by signal 9"):
        await played.loop().run()
    assert len(starts) == 3


async def test_a_trainer_that_fails_by_itself_is_not_started_again(tmp_path: Path) -> None:
    starts: list[int] = []

    def fail(_: TrainingWork) -> None:
        starts.append(1)
        raise TrainingFailed("the loss is no number")

    played = game(tmp_path)
    played.trainer.before = fail
    with pytest.raises(TrainingFailed, match="the loss is no number"):
        await played.loop().run()
    assert len(starts) == 1


async def test_a_reward_model_that_stays_away_ends_the_run_and_nothing_is_lost(
    tmp_path: Path,
) -> None:
    calls: list[int] = []

    def away(_: object) -> None:
        calls.append(1)
        if len(calls) > 12:
            raise NotReady("the reward model has stopped", retry_after_s=30.0)

    played = game(tmp_path, evaluation_prompts=0)
    played.patience_s = 0.3
    played.rewards.before = away
    with pytest.raises(NotReady, match="nothing was generated or scored for .* has stopped"):
        await played.loop().run()
    whole = game(tmp_path / "whole", evaluation_prompts=0)
    await whole.loop().run()
    again = game(tmp_path, evaluation_prompts=0)
    await again.loop().run()
    assert again.history == whole.history


async def test_a_prompt_that_no_policy_takes_is_left_out_and_told(tmp_path: Path) -> None:
    def refuse(messages: Turns) -> None:
        if messages[-1]["content"].startswith("Question 1"):
            raise InputTooLong("300 tokens, limit 256")

    played = game(tmp_path, evaluation_prompts=0)
    played.policy.before = refuse
    await played.loop().run()
    rows = read_samples(Workspace(tmp_path).iteration(1).samples)
    assert 0 < len(rows) < 60
    warnings = played.notes.warnings()
    assert any("is left out: 300 tokens, limit 256" in one for one in warnings)
    assert any("of 20 prompts were left out" in one for one in warnings)


async def test_a_file_that_no_policy_takes_fails_clearly(tmp_path: Path) -> None:
    def refuse(_: Turns) -> None:
        raise InputTooLong("300 tokens, limit 256")

    played = game(tmp_path)
    played.policy.before = refuse
    with pytest.raises(InvalidRequest, match="no prompt could be sampled and scored"):
        await played.loop().run()
    warnings = played.notes.warnings()
    assert any("nothing is known of the direction score" in one for one in warnings)
    # Ten of a step, the last of which says that more follow.
    assert sum("is left out" in one for one in warnings) == 3 + 10


async def test_samples_of_two_policies_are_not_compared(tmp_path: Path) -> None:
    played = game(tmp_path, evaluation_prompts=0)

    def exchange(_: Turns) -> None:
        if played.policy.drawn == 10:
            played.policy.version = "other"

    played.policy.before = exchange
    with pytest.raises(InvalidRequest, match="drawn by different policies, versions base, other"):
        await played.loop().run()


async def test_samples_of_other_weights_than_the_job_began_with_are_refused(tmp_path: Path) -> None:
    check_origin(tmp_path, Origin("played", "base", "played-rewards", "r1"))
    played = game(tmp_path, evaluation_prompts=0)
    played.policy.version = "exchanged"
    with pytest.raises(InvalidRequest, match="drawn by weights exchanged, and it begins with base"):
        await played.loop().run()


async def test_samples_of_other_weights_than_the_iteration_before_led_to_are_refused(
    tmp_path: Path,
) -> None:
    played = game(tmp_path, evaluation_prompts=0)

    def exchange(_: Turns) -> None:
        if played.policy.published:
            played.policy.version = "exchanged"

    played.policy.before = exchange
    with pytest.raises(InvalidRequest, match="iteration 2 were drawn by weights exchanged"):
        await played.loop().run()


async def test_weights_that_changed_on_the_disk_are_not_gone_on_with(tmp_path: Path) -> None:
    played = game(tmp_path, evaluation_prompts=0, iterations=1)
    await played.loop().run()
    report = Workspace(tmp_path).iteration(1).policy / "report.json"
    report.write_text('{"version": "changed"}')
    with pytest.raises(SteerwardError, match="they are changed, and were"):
        await game(tmp_path, evaluation_prompts=0, iterations=1).loop().run()


async def test_too_few_prompts_to_measure_on_are_told(tmp_path: Path) -> None:
    played = game(tmp_path, prompts_per_iteration=5)
    played.num_prompts = 8
    outcome = await played.loop().run()
    assert outcome.iteration == 2
    assert any("nothing is measured" in one for one in played.notes.warnings())


async def test_an_iteration_that_was_begun_is_ended_whatever_the_limits(tmp_path: Path) -> None:
    def killed(work: TrainingWork) -> None:
        if "iteration-002" in str(work.out):
            raise Killed

    first = game(tmp_path, evaluation_prompts=0)
    first.trainer.before = killed
    with pytest.raises(Killed):
        await first.loop().run()
    again = game(tmp_path, evaluation_prompts=0, max_sampled_tokens=1, max_seconds=1e-9)
    await again.loop().run()
    assert all_selected(tmp_path)[1]
    assert again.trainer.trained == 1


async def test_no_iteration_is_begun_over_the_limit(tmp_path: Path) -> None:
    played = game(tmp_path, evaluation_prompts=0, max_sampled_tokens=300)
    outcome = await played.loop().run()
    assert (outcome.iteration, outcome.sampled_tokens) == (1, 300)
    told = [message for _, message in played.notes.messages]
    assert "no iteration 2: 300 tokens were sampled, limit 300" in told
