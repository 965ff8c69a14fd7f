"""Runs of MODPO from a file of pairs to a folder, with a tiny policy and TRL's own trainer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steerward.policy.local.checkpoint import load_policy
from steerward.protocol.alignment import ModpoSettings
from steerward.protocol.errors import DatasetRefused, InvalidRequest
from steerward.training.align.run import AlignRun, align
from steerward.training.align.run_folder import read_run
from tests.policies import save_policy
from tests.training.align.test_online import Killed, KilledAt, of_text

SMALL: dict[str, Any] = {
    "batch_size": 6,
    "learning_rate": 1e-3,
    "max_tokens": 8,
    "evaluation_prompts": 2,
    "evaluation_steps": 2,
    "checkpoint_steps": 1,
}
QUICK: dict[str, Any] = {**SMALL, "evaluation_prompts": 0}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("modpo") / "base", rule=None)


def pairs(path: Path, **more: Any) -> Path:
    rows = (
        {"prompt": f"Tell me {i}.", "chosen": f"Fine {i}.", "rejected": "No and no.", **more}
        for i in range(20)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run_of(settings: ModpoSettings, base: Path, rows: Path, out: Path) -> AlignRun:
    return AlignRun(settings=settings, base=base, rows=rows, out=out)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_takes_margins_from_the_rewards_and_ends_with_a_policy(
    base: Path, tmp_path: Path, method: Any
) -> None:
    settings = ModpoSettings(
        margins={"length": -0.5}, weight=0.5, method=method, logged=["vowels"], **SMALL
    )
    run = run_of(settings, base, pairs(tmp_path / "pairs.jsonl"), tmp_path / "run")
    report = align(run, of_text)
    found = read_run(run.out)
    assert [one.step for one in found.evaluations] == [0, 2, 3]
    assert list(found.settings.objectives) == ["less_length", "vowels"]
    assert found.log[-1].metrics["modpo/margin"] == pytest.approx(0.5 * 2.1, abs=0.5)
    assert report.steps == 3
    if method == "full":
        assert load_policy(str(run.policy), device="cpu") is not None


def test_margins_may_stand_in_the_rows(base: Path, tmp_path: Path) -> None:
    rows = pairs(tmp_path / "p.jsonl", margin_chosen={"kind": 1.0}, margin_rejected=[-1.0])
    run = run_of(ModpoSettings(margins={"kind": -3.0}, **SMALL), base, rows, tmp_path / "run")
    align(run, of_text)
    found = read_run(run.out)
    assert found.log[0].metrics["modpo/margin"] == pytest.approx(6.0)
    assert found.log[0].metrics["modpo/margin/less_kind"] == pytest.approx(2.0)
    assert found.evaluations == []


def test_a_pair_that_lacks_a_margin_is_refused(base: Path, tmp_path: Path) -> None:
    rows = pairs(tmp_path / "p.jsonl", margin_chosen=1.0)
    run = run_of(ModpoSettings(margins={"kind": 1.0}, **SMALL), base, rows, tmp_path / "run")
    with pytest.raises(DatasetRefused, match="margin_rejected"):
        align(run, of_text)


def test_a_run_that_was_killed_ends_with_equal_weights(base: Path, tmp_path: Path) -> None:
    rows = pairs(tmp_path / "pairs.jsonl")
    settings = ModpoSettings(margins={"length": 1.0}, **SMALL)
    whole, broken = (run_of(settings, base, rows, tmp_path / name) for name in ("a", "b"))
    report = align(whole, of_text)
    with pytest.raises(Killed):
        align(broken, of_text, KilledAt(2))
    assert align(broken, of_text) == report
    weights = "model.safetensors"
    assert (broken.policy / weights).read_bytes() == (whole.policy / weights).read_bytes()


class Counted:
    """Rewards of the texts, and how often they were asked for."""

    version = "1"

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, names: Sequence[str]) -> list[Any]:
        (function,) = of_text(names)

        def length(**given: Any) -> list[float]:
            self.calls += 1
            return function(**given)

        return [length]


def test_weights_share_what_is_computed_and_train_as_each_would_alone(
    base: Path, tmp_path: Path
) -> None:
    rows, source = pairs(tmp_path / "pairs.jsonl"), Counted()
    settings = ModpoSettings(margins={"length": -1.0}, **QUICK)
    cache = tmp_path / "front"
    found = [
        run_of(settings.swept(weight), base, rows, cache / f"w{weight:g}") for weight in (0.25, 1.0)
    ]
    for run in found:
        align(replace(run, cache=cache), source)
    calls = source.calls
    alone = run_of(settings.swept(0.25), base, rows, tmp_path / "alone")
    align(alone, source)
    assert source.calls == 2 * calls
    contents = [(run.policy / "model.safetensors").read_bytes() for run in (*found, alone)]
    assert contents[0] == contents[2]
    assert contents[0] != contents[1]
    assert (cache / "reference.safetensors").is_file()
    assert not list(cache.glob("w*/reference.safetensors"))


def test_a_run_that_is_finished_is_not_trained_again_and_refuses_other_settings(
    base: Path, tmp_path: Path
) -> None:
    rows, source = pairs(tmp_path / "pairs.jsonl"), Counted()
    settings = ModpoSettings(margins={"length": 1.0}, **QUICK)
    run = run_of(settings, base, rows, tmp_path / "run")
    report = align(run, source)
    calls, written = source.calls, (run.policy / "model.safetensors").stat().st_mtime_ns
    assert align(run, source) == report
    assert (run.policy / "model.safetensors").stat().st_mtime_ns == written
    other = replace(run, settings=settings.swept(0.5))
    with pytest.raises(InvalidRequest, match="finished run with other rows"):
        align(other, source)
    assert source.calls == calls
