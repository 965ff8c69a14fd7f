"""Runs of GRPO, PAMA and CGPO from a file to a folder, with a tiny policy and real trainers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from steerward.policy.local.checkpoint import load_policy
from steerward.protocol.alignment import CgpoSettings, CgpoTask, GrpoSettings, PamaSettings
from steerward.protocol.errors import DatasetRefused, InvalidRequest, SteerwardError
from steerward.training.align import runner
from steerward.training.align.run import AlignRun, AnySettings, align
from steerward.training.align.run_folder import read_run
from tests.policies import save_policy

SMALL: dict[str, Any] = {
    "steps": 4,
    "prompts_per_step": 2,
    "group_size": 4,
    "max_tokens": 8,
    "learning_rate": 1e-3,
    "evaluation_prompts": 2,
    "evaluation_steps": 2,
    "checkpoint_steps": 2,
}


def of_text(names: Sequence[str]) -> list[Any]:
    """Return rewards that any text has: its length, and its share of vowels."""

    def length(prompts: Any, completions: Sequence[Any], **_: Any) -> list[float]:
        return [float(len(turns[-1]["content"])) for turns in completions]

    def vowels(prompts: Any, completions: Sequence[Any], **_: Any) -> list[float]:
        texts = [turns[-1]["content"] for turns in completions]
        return [sum(c in "aeiou" for c in text) / max(1, len(text)) for text in texts]

    known = {"score": length, "length": length, "vowels": vowels}
    return [known[name] for name in names]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("align") / "base", rule=None)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("align") / "prompts.jsonl"
    rows = ({"prompt": f"Tell me about {i}.", "kwargs": {"n": i}} for i in range(20))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run_of(settings: AnySettings, base: Path, prompts: Path, out: Path) -> AlignRun:
    return AlignRun(settings=settings, base=base, rows=prompts, out=out)


@pytest.mark.parametrize(
    "settings",
    [
        GrpoSettings(weights={"length": -1.0, "vowels": 2.0}, **SMALL),
        GrpoSettings(estimator="rloo", kl_coef=0.1, logged=["vowels"], **SMALL),
        PamaSettings(weights={"length": 1.0, "vowels": 1.0}, diagnostic_steps=2, **SMALL),
        PamaSettings(method="lora", weights={"length": 1.0, "vowels": 1.0}, **SMALL),
        CgpoSettings(
            tasks={"only": CgpoTask(reward="length", judges=[{"type": "length", "minimum": 0}])},
            **SMALL,
        ),
    ],
    ids=["grpo", "rloo", "pama", "pama-lora", "cgpo"],
)
def test_a_run_ends_with_a_policy_and_measures_held_out_prompts(
    settings: AnySettings, base: Path, prompts: Path, tmp_path: Path
) -> None:
    run = run_of(settings, base, prompts, tmp_path / "run")
    report = align(run, of_text)
    found = read_run(run.out)
    assert [one.step for one in found.evaluations] == [0, 2, 4]
    assert [one.step for one in found.log] == [1, 2, 3, 4]
    assert all(len(one.characters) == 2 for one in found.evaluations)
    assert set(report.rewards) == set(found.settings.objectives)
    assert report.steps == 4
    assert report.trained_tokens > 0
    assert not (run.out / "checkpoints").exists()
    if settings.method == "full":
        changed = load_file(run.policy / "model.safetensors")
        before = load_file(base / "model.safetensors")
        assert any(not changed[name].equal(before[name]) for name in before)
        assert load_policy(str(run.policy), device="cpu") is not None
    else:
        assert (run.policy / "adapter_model.safetensors").is_file()
    if isinstance(settings, CgpoSettings):
        assert found.evaluations[-1].rewards["satisfied"] == [1.0, 1.0]


def test_held_out_prompts_are_measured_by_the_reward_of_their_own_task(
    base: Path, tmp_path: Path
) -> None:
    rows = [{"prompt": f"Tell me about {i}.", "task": "ab"[i % 2]} for i in range(40)]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = {"a": CgpoTask(reward="length"), "b": CgpoTask(reward="vowels")}
    settings = CgpoSettings(tasks=tasks, **{**SMALL, "steps": 2, "evaluation_prompts": 4})
    run = run_of(settings, base, path, tmp_path / "run")
    align(run, of_text)
    for found in read_run(run.out).evaluations:
        length, vowels = found.rewards["length"], found.rewards["vowels"]
        assert 0 < sum(value is None for value in length) < 4
        assert [value is None for value in length] == [value is not None for value in vowels]
        assert None not in found.rewards["satisfied"]


class Killed(Exception):
    pass


class KilledAt:
    """Ends the run at a step, as a kill would."""

    def __init__(self, step: int) -> None:
        self._step = step

    def stepped(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        del steps, metrics
        if step == self._step:
            raise Killed

    def measured(self, step: int, rewards: Mapping[str, float]) -> None:
        """Say nothing."""

    def noted(self, text: str) -> None:
        """Say nothing."""


@pytest.mark.parametrize("updates", [1, 2])
def test_a_run_that_was_killed_goes_on_and_ends_with_equal_weights(
    base: Path, prompts: Path, tmp_path: Path, updates: int
) -> None:
    settings = GrpoSettings(
        weights={"length": 1.0, "vowels": 1.0}, updates_per_batch=updates, **SMALL
    )
    whole = run_of(settings, base, prompts, tmp_path / "whole")
    broken = run_of(settings, base, prompts, tmp_path / "broken")
    report = align(whole, of_text)
    with pytest.raises(Killed):
        align(broken, of_text, KilledAt(3))
    assert align(broken, of_text) == report
    assert (broken.policy / "model.safetensors").read_bytes() == (
        whole.policy / "model.safetensors"
    ).read_bytes()
    assert read_run(broken.out).evaluations == read_run(whole.out).evaluations


def test_a_finished_run_is_not_done_again_and_another_is_refused(
    base: Path, prompts: Path, tmp_path: Path
) -> None:
    settings = GrpoSettings(**{**SMALL, "steps": 1})
    run = run_of(settings, base, prompts, tmp_path / "run")
    report = align(run, of_text)
    assert align(run, _no_source) == report
    other = run_of(settings.model_copy(update={"seed": 5}), base, prompts, run.out)
    with pytest.raises(InvalidRequest, match="finished run with other rows"):
        align(other, of_text)


def _no_source(names: Sequence[str]) -> list[Any]:
    raise AssertionError("a finished run asks for no rewards")


def test_a_prompt_that_leaves_no_room_for_a_completion_is_refused(
    base: Path, tmp_path: Path
) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"prompt": "word " * 300}) + "\n")
    settings = GrpoSettings(**{**SMALL, "evaluation_prompts": 0})
    with pytest.raises(DatasetRefused, match="256 positions"):
        align(run_of(settings, base, path, tmp_path / "run"), of_text)


def test_a_reward_that_fails_ends_the_run_with_its_own_error(
    base: Path, prompts: Path, tmp_path: Path
) -> None:
    def source(names: Sequence[str]) -> list[Any]:
        def score(**_: Any) -> list[float]:
            raise SteerwardError("the reward model is away")

        return [score for _ in names]

    settings = GrpoSettings(**{**SMALL, "evaluation_prompts": 0})
    with pytest.raises(SteerwardError, match="the reward model is away"):
        align(run_of(settings, base, prompts, tmp_path / "run"), source)


def test_a_run_that_is_killed_while_its_policy_is_written_ends_as_any_other(
    base: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The steps are no whole number of epochs, and a checkpoint would fall on the last.
    settings = GrpoSettings(**SMALL)
    whole = run_of(settings, base, prompts, tmp_path / "whole")
    broken = run_of(settings, base, prompts, tmp_path / "broken")
    report = align(whole, of_text)

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(runner, "save_aligned", killed)
        with pytest.raises(Killed):
            align(broken, of_text)
    assert align(broken, of_text) == report
    assert report.rewards
    assert len(read_run(broken.out).log) == 4


def test_a_run_is_of_its_rewards_too(base: Path, prompts: Path, tmp_path: Path) -> None:
    def other(names: Sequence[str]) -> list[Any]:
        return of_text(names)

    other.version = "other"  # pyright: ignore[reportFunctionMemberAccess]
    run = run_of(GrpoSettings(**{**SMALL, "steps": 1}), base, prompts, tmp_path / "run")
    align(run, of_text)
    with pytest.raises(InvalidRequest, match="other rows, policy, rewards or settings"):
        align(run, other)


def test_an_unfinished_run_of_other_settings_is_left_alone(
    base: Path, prompts: Path, tmp_path: Path
) -> None:
    settings = GrpoSettings(**SMALL)
    with pytest.raises(Killed):
        align(run_of(settings, base, prompts, tmp_path / "run"), of_text, KilledAt(3))
    other = settings.model_copy(update={"seed": 1})
    with pytest.raises(InvalidRequest, match="other rows, policy, rewards or settings"):
        align(run_of(other, base, prompts, tmp_path / "run"), of_text)


def test_what_normalises_rewards_is_told(base: Path, prompts: Path, tmp_path: Path) -> None:
    run = run_of(GrpoSettings(**{**SMALL, "steps": 1}), base, prompts, tmp_path / "run")
    align(run, of_text)
    notes = json.loads((run.out / "settings.json").read_text())["notes"]
    assert "epsilon 0.0001" in notes["advantages"]
    assert notes["loss"] == "dapo"
