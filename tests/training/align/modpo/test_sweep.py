"""A sweep pays for margins and reference once, and for each training once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from steerward.protocol.errors import CheckpointRefused, InvalidRequest, SteerwardError
from steerward.training.align.modpo.loss import Tradeoff
from steerward.training.align.modpo.margin_sources import FunctionMargins
from steerward.training.align.modpo.margins import with_margins
from steerward.training.align.modpo.sweep import run_name, sweep
from tests.policies import save_policy
from tests.training.align.modpo.cases import TRAINING, lora, pairs, trainer

NAMES = ("helpfulness", "brevity")
WEIGHTS = [Tradeoff(NAMES, (own, 1.0 - own)) for own in (0.25, 0.75)]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("policy") / "tiny")


def brevity(calls: list[str]) -> FunctionMargins:
    def shortness(prompt: Any, response: Any) -> float:
        calls.append(response[0]["content"])
        return -0.1 * len(response[0]["content"])

    return FunctionMargins({"brevity": shortness}, version="1")


def measure(calls: list[int]) -> Callable[[Any], Mapping[str, Any]]:
    def evaluate(model: Any) -> Mapping[str, Any]:
        calls.append(1)
        assert not model.training
        first = next(model.parameters()).detach().sum().item()
        return {
            "rewards": {"helpfulness": [first, None], "brevity": [0.0, None]},
            "characters": [3, 4],
        }

    return evaluate


def run(policy: Path, out: Path, **changes: Any) -> list[Path]:
    given: dict[str, Any] = {
        "tradeoffs": WEIGHTS,
        "pairs": pairs(margins=0),
        "sources": [brevity([])],
        "training": TRAINING,
        **changes,
    }
    return sweep(given.pop("tradeoffs"), policy=policy, out=out, **given)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_set_of_weights_has_a_folder_with_its_run(policy: Path, tmp_path: Path) -> None:
    measured: list[int] = []
    calls: list[str] = []
    found = run(policy, tmp_path, evaluate=measure(measured), sources=[brevity(calls)])
    assert [path.name for path in found] == [
        "helpfulness-0.25_brevity-0.75",
        "helpfulness-0.75_brevity-0.25",
    ]
    # Once for all before, and once each after.
    assert len(measured) == 3
    assert len(calls) == 12
    weights = []
    for path, given in zip(found, WEIGHTS, strict=True):
        written = json.loads((path / "settings.json").read_text())
        assert written["method"] == "modpo"
        assert written["objectives"] == ["helpfulness", "brevity"]
        assert written["weights"] == dict(zip(NAMES, given.weights, strict=True))
        log = lines(path / "log.jsonl")
        assert [one["step"] for one in log] == [1, 2, 2]
        assert log[0]["metrics"]["modpo/margin/brevity"] > 0
        evaluations = lines(path / "evaluations.jsonl")
        assert [one["step"] for one in evaluations] == [0, 2]
        assert evaluations[0]["rewards"]["helpfulness"][1] is None
        assert (path / "policy" / "conditioning.json").is_file()
        assert not (path / "checkpoints").exists()
        weights.append(load_file(path / "policy" / "model.safetensors"))
    assert any(not torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_run_of_a_sweep_is_a_training_alone(policy: Path, tmp_path: Path) -> None:
    """Shared caches change nothing: the weights are those of a trainer that knows of no sweep."""
    path = run(policy, tmp_path / "sweep", tradeoffs=WEIGHTS[:1])[0]
    alone = trainer(
        policy,
        tmp_path / "alone",
        tradeoff=Tradeoff(("helpfulness", "brevity"), (0.25, 0.75)),
        data=with_margins(pairs(margins=0), [brevity([])]),
        precompute_ref_log_probs=True,
    )
    alone.train()
    expected = alone.model.state_dict()
    for name, tensor in load_file(path / "policy" / "model.safetensors").items():
        assert torch.equal(tensor, expected[name]), name


def test_finished_runs_are_not_trained_again(policy: Path, tmp_path: Path) -> None:
    first = run(policy, tmp_path, tradeoffs=WEIGHTS[:1])[0]
    changed = (first / "policy" / "model.safetensors").stat().st_mtime_ns
    calls: list[str] = []
    measured: list[int] = []
    found = run(policy, tmp_path, sources=[brevity(calls)], evaluate=measure(measured))
    assert found[0] == first
    assert (first / "policy" / "model.safetensors").stat().st_mtime_ns == changed
    assert (found[1] / "policy").is_dir()
    assert not calls
    assert len(measured) == 2
    run(policy, tmp_path, evaluate=measure(measured))
    assert len(measured) == 2


class Killed(Exception):
    """Ends a training between two steps."""


class Steps(TrainerCallback):
    """Counts steps, and ends training before one."""

    def __init__(self, *, last: int | None = None) -> None:
        self.done: list[int] = []
        self._last = last

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        del args, control
        if state.global_step == self._last:
            raise Killed

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        del args, control
        self.done.append(state.global_step)


def test_run_that_was_broken_off_goes_on_with_the_same_numbers(
    policy: Path, tmp_path: Path
) -> None:
    whole = run(policy, tmp_path / "whole", tradeoffs=WEIGHTS[:1])[0]
    with pytest.raises(Killed):
        run(policy, tmp_path / "broken", tradeoffs=WEIGHTS[:1], callbacks=[Steps(last=1)])
    broken = tmp_path / "broken" / whole.name
    assert [one["step"] for one in lines(broken / "log.jsonl")] == [1]
    assert not (broken / "policy").exists()
    steps = Steps()
    run(policy, tmp_path / "broken", tradeoffs=WEIGHTS[:1], callbacks=[steps])
    assert steps.done == [2]
    expected = load_file(whole / "policy" / "model.safetensors")
    for name, tensor in load_file(broken / "policy" / "model.safetensors").items():
        assert torch.equal(tensor, expected[name]), name
    assert _losses(broken) == _losses(whole)


def _losses(path: Path) -> list[float]:
    logged = [one["metrics"] for one in lines(path / "log.jsonl")]
    return [one["loss"] for one in logged if "loss" in one]


def test_adapters_are_trained_and_saved_as_such(policy: Path, tmp_path: Path) -> None:
    found = run(policy, tmp_path, tradeoffs=WEIGHTS[:1], adapter=lora())[0]
    assert (found / "policy" / "adapter_model.safetensors").is_file()
    # The same adapter again is the same run.
    run(policy, tmp_path, tradeoffs=WEIGHTS[:1], adapter=lora())


def test_policy_that_changes_meanwhile_ends_the_sweep(policy: Path, tmp_path: Path) -> None:
    """Else some runs would begin with other weights than those of the reference."""
    copy = Path(shutil.copytree(policy, tmp_path / "policy"))
    written: list[int] = []

    def evaluate(model: Any) -> Mapping[str, Any]:
        if not written:
            save_policy(copy, seed=1)
        written.append(1)
        return measure([])(model)

    with pytest.raises(CheckpointRefused, match="has changed since the sweep began"):
        run(copy, tmp_path / "out", evaluate=evaluate)
    assert len(written) == 1


def test_folder_of_another_run_is_refused(policy: Path, tmp_path: Path) -> None:
    run(policy, tmp_path, tradeoffs=WEIGHTS[:1])
    with pytest.raises(SteerwardError, match="holds a run with other pairs"):
        run(policy, tmp_path, tradeoffs=WEIGHTS[:1], training=TRAINING | {"beta": 0.2})
    with pytest.raises(SteerwardError, match="holds a run with other pairs"):
        run(policy, tmp_path, pairs=pairs(margins=0).select(range(5)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tradeoffs": [Tradeoff(NAMES[:1], (1.0,))]}, "give each its weight"),
        ({"tradeoffs": [WEIGHTS[0], Tradeoff(NAMES[::-1], (0.5, 0.5))]}, "give each its weight"),
        ({"tradeoffs": [WEIGHTS[0], WEIGHTS[0]]}, "each once"),
        ({"tradeoffs": []}, "at least one"),
        ({"training": TRAINING | {"output_dir": "a"}}, "sets output_dir itself"),
        ({"training": TRAINING | {"betta": 1.0}}, "TRL refuses the settings"),
        ({"training": TRAINING | {"loss_type": "ipo"}}, "cannot be used with MODPO"),
    ],
    ids=["few", "others", "twice", "none", "folder", "unknown", "loss"],
)
def test_what_does_not_fit_is_refused_before_anything_is_computed(
    policy: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    calls: list[str] = []
    with pytest.raises(InvalidRequest, match=message):
        run(policy, tmp_path, sources=[brevity(calls)], **changes)
    assert not calls
    assert not list(tmp_path.iterdir())


def test_weights_are_taken_by_name_whatever_their_order(policy: Path, tmp_path: Path) -> None:
    names = ("helpfulness", "safety", "brevity")
    safety = FunctionMargins({"safety": lambda *_: 0.5}, version="1")
    found = run(
        policy,
        tmp_path,
        tradeoffs=[Tradeoff(names, (0.5, 0.3, 0.2))],
        sources=[brevity([]), safety],
    )
    assert found[0].name == "helpfulness-0.5_brevity-0.2_safety-0.3"


def test_name_of_a_run_is_a_folders() -> None:
    assert run_name(Tradeoff(("a/b", "c d"), (1.0, -0.1))) == "a-b-1.0_c-d--0.1"
