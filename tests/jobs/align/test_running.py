"""A run of an optimiser: its process killed, failed, cancelled; rewards that do not come."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from steerward.jobs.align.running import AlignInput, AlignmentRun, AlignPorts
from steerward.jobs.ending import can_go_on
from steerward.protocol.alignment import PamaSettings
from steerward.protocol.errors import InvalidRequest, NotReady, TrainingFailed
from tests.jobs.align.telling import Told
from tests.jobs.children import children_of
from tests.jobs.rsf.playing import PlayedPolicy, PlayedRewards
from tests.policies import save_policy

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]
LAUNCHED = """\
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_GPU
mixed_precision: 'no'
num_machines: 1
num_processes: 2
rdzv_backend: c10d
use_cpu: true
"""
SETTINGS = PamaSettings(weights={"help": 1.0}, evaluation_steps=4)
ROWS = [{"prompt": "Tell me.", "answer": "4"}, {"prompt": "And more.", "id": 7}]


class Publishing:
    """Serves nothing."""

    async def publish(self, folder: Path, kind: str) -> str:
        assert kind == "full"
        return (folder / "config.json").read_text()[:1]


def make_run(
    folder: Path, told: Told, *, name: str = "plain", rewards: PlayedRewards | None = None
) -> tuple[AlignmentRun, PlayedPolicy]:
    rows = folder / "uploaded.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    policy = PlayedPolicy()
    given = AlignInput(
        job_id=name,
        method="pama",
        settings=SETTINGS,
        rows=rows,
        validation_rows=rows,
        base=folder,
        reward_weight_version="r1",
        most_candidates=8,
        folder=folder / "job",
    )
    run = AlignmentRun(
        given,
        AlignPorts(reward_model=rewards or PlayedRewards(), publisher=policy),
        told,
        patience_s=0.2,
        environment={"PYTHONPATH": str(ROOT)},
        module="tests.jobs.align.playing_process",
    )
    return run, policy


def processes() -> list[int]:
    return children_of("playing_process")


async def test_a_run_tells_its_steps_and_serves_its_policy(tmp_path: Path) -> None:
    told = Told()
    run, policy = make_run(tmp_path, told)
    aligned = await run.run()
    assert (aligned.weight_version, aligned.trained_tokens) == ("trained", 20)
    assert aligned.folder == tmp_path / "job" / "run" / "policy"
    assert policy.published == ["trained"]
    last = told.progresses[-1]
    assert (last.step, last.done, last.total, last.trained_tokens) == ("done", 4, 4, 20)
    assert [one.iteration for one in last.history] == [0, 4]
    assert "help" in last.history[0].rewards
    steps = [progress.step for progress in told.progresses]
    assert steps[0] == "waiting"
    assert {"training", "evaluating"} < set(steps)
    assert told.messages.count("step 2 of 4") == 1
    # What users uploaded is not kept twice.
    assert not (tmp_path / "job" / "rows").exists()


async def test_a_killed_process_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    told = Told()
    run, _ = make_run(tmp_path, told, name="killed")
    await run.run()
    steps = [m for m in told.messages if m.startswith("step ")]
    assert steps == [f"step {step} of 4" for step in range(1, 5)]
    assert any("killed by signal 9" in m and "started again" in m for m in told.messages)
    assert [one.iteration for one in told.progresses[-1].history] == [0, 4]


async def test_each_step_that_is_made_gives_a_killed_process_new_patience(tmp_path: Path) -> None:
    told = Told()
    run, _ = make_run(tmp_path, told, name="killed in each step")
    await run.run()
    again = [m for m in told.messages if "started again" in m]
    assert len(again) == 4


async def test_a_process_that_is_killed_before_each_step_can_be_resumed(tmp_path: Path) -> None:
    told = Told()
    run, _ = make_run(tmp_path, told, name="killed at once")
    with pytest.raises(NotReady, match="killed 3 times before another step .* signal 9") as caught:
        await run.run()
    assert can_go_on(caught.value)
    assert len([m for m in told.messages if "started again" in m]) == 2
    # What it needs to go on is kept.
    assert (tmp_path / "job" / "rows").exists()


async def test_a_reward_model_that_is_exchanged_ends_the_run(tmp_path: Path) -> None:
    run, policy = make_run(tmp_path, Told(), rewards=PlayedRewards(version="r2"))
    with pytest.raises(InvalidRequest, match="different reward models, versions r1, r2"):
        await run.run()
    assert policy.published == []


async def test_what_a_process_fails_with_is_told(tmp_path: Path) -> None:
    run, policy = make_run(tmp_path, Told(), name="failing")
    with pytest.raises(TrainingFailed, match="InvalidRequest: the rows do not fit; log: "):
        await run.run()
    assert policy.published == []


async def test_a_cancelled_run_has_no_process_any_more(tmp_path: Path) -> None:
    told = Told()
    run, _ = make_run(tmp_path, told, name="waiting")
    running = asyncio.create_task(run.run())
    while not any(progress.done for progress in told.progresses):
        await asyncio.sleep(0.01)
    assert processes()
    # Again and again, as the runner does.
    while not running.done():
        running.cancel()
        await asyncio.wait([running], timeout=0.001)
    assert running.cancelled()
    assert not processes()


async def test_a_reward_model_that_stays_away_ends_the_process(tmp_path: Path) -> None:
    def away(_: Sequence[str]) -> None:
        raise NotReady("the engine has stopped")

    run, _ = make_run(tmp_path, Told(), rewards=PlayedRewards(before=away))
    with pytest.raises(NotReady, match="nothing was generated or scored"):
        await run.run()
    assert not processes()


async def test_an_error_of_the_reward_model_is_the_runs(tmp_path: Path) -> None:
    def wrong(_: Any) -> None:
        raise InvalidRequest("no such prompt")

    run, _ = make_run(tmp_path, Told(), rewards=PlayedRewards(before=wrong))
    with pytest.raises(InvalidRequest, match="no such prompt"):
        await run.run()
    assert not processes()


async def test_each_of_two_processes_asks_for_its_own_rewards(tmp_path: Path) -> None:
    told = Told()
    launcher = tmp_path / "accelerate.yaml"
    launcher.write_text(LAUNCHED)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"prompt": "Tell me {place}."}}\n' for place in range(40)))
    settings = PamaSettings(
        weights={"help": 1.0, "length": -0.1},
        steps=2,
        prompts_per_step=2,
        group_size=2,
        max_tokens=4,
        evaluation_prompts=2,
    )
    given = AlignInput(
        job_id="job",
        method="pama",
        settings=settings,
        rows=rows,
        validation_rows=None,
        base=save_policy(tmp_path / "base"),
        reward_weight_version="r1",
        most_candidates=8,
        folder=tmp_path / "job",
    )
    calls: list[Sequence[str]] = []
    ports = AlignPorts(PlayedRewards(before=calls.append), Publishing())
    run = AlignmentRun(
        given,
        ports,
        told,
        patience_s=1.0,
        accelerate_config=launcher,
        environment={"OMP_NUM_THREADS": "1"},
    )
    aligned = await run.run()
    assert aligned.trained_tokens > 0
    assert told.progresses[-1].done == 2
    # A prompt's group each of two processes and two steps, beside two evaluations of two prompts,
    # of which the second asks for new answers only.
    sizes = [len(texts) for texts in calls]
    assert sizes.count(2) == 4
    assert 2 <= sizes.count(1) <= 4
