"""What is told of runs: pooled seeds, gains in spreads, the worst of them, and volumes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from steerward.protocol.errors import DatasetRefused, InvalidRequest, UnknownObjective
from steerward.training.align.report.numbers import PromptBootstrap, compare, run_numbers, volumes
from steerward.training.align.report.runs import common_objectives, pooled, read_runs
from steerward.training.align.run_folder import RunWriter

PROMPTS = 40
SPREAD = {"kind": 2.0, "short": 0.5}


def write_run(
    folder: Path,
    gains: dict[str, float],
    *,
    method: str = "pama",
    name: str = "pama",
    seed: int = 0,
    steps: Sequence[int] = (0, 5, 10),
    prompts: int = PROMPTS,
) -> Path:
    """Write a run whose rewards rise evenly to gains, in spreads of the start policy."""
    settings = {"method": method, "name": name, "objectives": list(gains), "seed": seed}
    writer = RunWriter(folder, settings)
    # Half of the prompts at -1, half at 1 spread.
    places = np.tile([-1.0, 1.0], prompts // 2)
    for step in steps:
        share = step / max(steps) if max(steps) else 0.0
        rewards = {
            name: (SPREAD.get(name, 0.0) * (places + share * gain)).tolist()
            for name, gain in gains.items()
        }
        writer.evaluate(step, rewards=rewards, characters=[100 + step] * prompts)
    return folder


def test_gains_are_told_in_spreads_of_the_start_policy(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {"kind": 1.0, "short": -0.25})
    (run,) = pooled(read_runs([folder], None), ["kind", "short"])
    comparison = compare([run], ["kind", "short"], None)
    assert comparison.units_K == [2.0, 0.5]
    found = run_numbers(run, comparison)
    last = found["last"]
    assert last["step"] == 10
    assert last["gains"]["kind"].mean == pytest.approx(2.0)
    assert last["gains_in_spreads"]["kind"].mean == pytest.approx(1.0)
    # All prompts gained the same, so that pairing leaves nothing to chance.
    assert last["gains_in_spreads"]["kind"].low == pytest.approx(1.0)
    assert last["rewards"]["kind"].low < 1.9
    assert last["worst"]["objective"] == "short"
    assert last["worst"]["gain_in_spreads"].mean == pytest.approx(-0.25)
    assert last["characters_gain"].mean == pytest.approx(10.0)
    assert [one.mean for one in found["curves"]["kind"]] == pytest.approx([0.0, 1.0, 2.0])


def test_best_evaluation_need_not_be_the_last(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, {"method": "m", "name": "m", "objectives": ["a"]})
    for step, gain in [(0, 0.0), (5, 3.0), (10, 1.0)]:
        writer.evaluate(step, rewards={"a": [gain, gain + 1.0]}, characters=[1, 1])
    (run,) = pooled(read_runs([tmp_path], None), ["a"])
    assert run_numbers(run, compare([run], ["a"], None))["best"]["step"] == 5


def test_seeds_of_one_run_are_one_line_at_their_common_steps(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / "a", {"kind": 1.0}, seed=1),
        write_run(tmp_path / "b", {"kind": 2.0}, seed=2, steps=(0, 10)),
        write_run(tmp_path / "c", {"kind": 3.0}, name="other", seed=1),
    ]
    first, other = pooled(read_runs(folders, None), ["kind"])
    assert (first.label, other.label) == ("pama", "pama: other")
    assert [len(run.folders) for run in (first, other)] == [2, 1]
    assert first.steps == [0, 10]
    comparison = compare([first, other], ["kind"], None)
    found = run_numbers(first, comparison)
    assert found["last"]["gains_in_spreads"]["kind"].mean == pytest.approx(1.5)
    assert found["seeds"] == 2


def test_prompts_an_objective_does_not_apply_to_are_left_out(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, {"method": "m", "name": "m", "objectives": ["a"]})
    writer.evaluate(0, rewards={"a": [0.0, 2.0, None]}, characters=[1, 1, 1])
    writer.evaluate(5, rewards={"a": [1.0, None, 9.0]}, characters=[1, 1, 1])
    (run,) = pooled(read_runs([tmp_path], None), ["a"])
    comparison = compare([run], ["a"], None)
    assert comparison.units_K == [1.0]
    last = run_numbers(run, comparison)["last"]
    assert last["rewards"]["a"].mean == pytest.approx(5.0)
    # Only the first prompt has both.
    assert last["gains"]["a"].mean == pytest.approx(1.0)


def test_objective_without_spread_has_rewards_and_no_scaled_gain(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", {"kind": 1.0, "flat": 0.0})
    (run,) = pooled(read_runs([folder], None), ["kind", "flat"])
    comparison = compare([run], ["kind", "flat"], None)
    assert comparison.units_K == [2.0, None]
    found = run_numbers(run, comparison)
    assert found["last"]["gains_in_spreads"]["flat"] is None
    assert found["last"]["worst"] is None
    assert found["best"] is None
    assert volumes(comparison) is None


def test_hypervolume_is_of_a_methods_runs_above_the_reference(tmp_path: Path) -> None:
    folders = [
        write_run(tmp_path / "a", {"kind": 2.0, "short": 1.0}, method="modpo", name="w 0.1"),
        write_run(tmp_path / "b", {"kind": 1.0, "short": 3.0}, method="modpo", name="w 0.9"),
        write_run(tmp_path / "c", {"kind": 1.0, "short": 1.0}, method="grpo"),
    ]
    names = ["kind", "short"]
    runs = pooled(read_runs(folders, None), names)
    by_default = compare(runs, names, None)
    # One spread below the start, which is the lowest of all.
    assert by_default.reference_K == pytest.approx([-2.0, -0.5])
    found = volumes(by_default)
    assert found is not None
    assert found.methods["modpo"].mean == pytest.approx(3 * 2 + 2 * 2)
    assert found.methods["grpo"].mean == pytest.approx(4.0)
    assert found.start.mean == pytest.approx(1.0)
    assert found.methods["grpo"].low < 4.0 < found.methods["grpo"].high
    given = volumes(compare(runs, names, {"short": 0.0, "kind": 0.0}))
    assert given is not None
    assert given.methods["modpo"].mean == pytest.approx(2 * 1 + 1 * 2)
    assert given.start.mean == 0.0


@pytest.mark.parametrize(
    ("reference", "message"),
    [({"kind": 0.0}, "one reward for each"), ({"kind": 0.0, "short": float("nan")}, "is nan")],
)
def test_reference_that_does_not_fit_is_refused(
    tmp_path: Path, reference: dict[str, float], message: str
) -> None:
    runs = pooled(read_runs([write_run(tmp_path, {"kind": 1.0, "short": 1.0})], None), ["kind"])
    with pytest.raises(InvalidRequest, match=message):
        compare(runs, ["kind", "short"], reference)


def test_runs_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    first = write_run(tmp_path / "first", {"kind": 1.0, "short": 1.0})
    other = write_run(tmp_path / "other", {"kind": 1.0})
    fewer = write_run(tmp_path / "fewer", {"kind": 1.0, "short": 1.0}, prompts=10)
    later = write_run(tmp_path / "later", {"kind": 1.0, "short": 1.0}, steps=(5, 10))
    assert common_objectives(read_runs([first, other], None)) == ["kind"]
    stranger = write_run(tmp_path / "stranger", {"rude": 1.0})
    with pytest.raises(InvalidRequest, match="no objective in common"):
        read_runs([first, stranger], None)
    assert len(read_runs([first, other], ["kind"])) == 2
    with pytest.raises(UnknownObjective, match="other has no short; its objectives are kind"):
        read_runs([first, other], ["short"])
    with pytest.raises(InvalidRequest, match="10 prompts, .*first on 40"):
        read_runs([first, fewer], None)
    with pytest.raises(DatasetRefused, match="later has no evaluation of the start"):
        read_runs([later], None)
    with pytest.raises(InvalidRequest, match="each only once"):
        read_runs([first, tmp_path / "." / "first"], None)
    again = write_run(tmp_path / "again", {"kind": 2.0, "short": 1.0})
    with pytest.raises(InvalidRequest, match="both runs of 'pama' with seed 0"):
        pooled(read_runs([first, again], None), ["kind"])


def test_runs_of_one_name_may_differ_in_their_seed_only(tmp_path: Path) -> None:
    def written(name: str, settings: dict[str, object]) -> Path:
        told = {"method": "modpo", "name": "modpo", "objectives": ["a"], "settings": settings}
        rewards = {"a": [0.0, 1.0]}
        RunWriter(tmp_path / name, told).evaluate(0, rewards=rewards, characters=[1, 1])
        return tmp_path / name

    first = written("first", {"seed": 0, "weight": 0.1, "out": "first"})
    seed = written("seed", {"seed": 1, "weight": 0.1, "out": "seed"})
    assert len(pooled(read_runs([first, seed], None), ["a"])) == 1
    other = written("other", {"seed": 1, "weight": 0.9, "out": "other"})
    with pytest.raises(InvalidRequest, match="both runs of 'modpo' and differ in weight; name"):
        pooled(read_runs([first, other], None), ["a"])
    again = written("again", {"seed": 0, "weight": 0.1, "out": "again"})
    with pytest.raises(InvalidRequest, match="with seed 0"):
        pooled(read_runs([first, again], None), ["a"])


def test_runs_of_mapl_with_other_instructions_are_refused_with_a_way_out(tmp_path: Path) -> None:
    """Instructions are part of the prompts: the same validation file is not enough."""
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        told = {"method": "mapl", "name": folder.name, "objectives": ["followed"]}
        writer = RunWriter(folder, {**told, "held_out_digest": folder.name})
        writer.evaluate(0, rewards={"followed": [0.5, 1.0]}, characters=[1, 1])
    with pytest.raises(InvalidRequest, match="same held_out_kinds, .* both weights 0"):
        read_runs(folders, None)


def test_interval_covers_the_mean_of_new_prompts_as_often_as_it_says() -> None:
    numbers = np.random.default_rng(1)
    hits = 0
    for seed in range(200):
        found = PromptBootstrap(60, resamples=400, seed=seed).interval(numbers.normal(size=60))
        hits += found.low <= 0.0 <= found.high
    assert 0.90 <= hits / 200 <= 0.99
