"""The front of a sweep is what its runs measured, and its end is DPO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.modpo_front import Setting, run
from benchmarks.modpo_front_tables import summarise
from benchmarks.modpo_pairs import (
    Objective,
    correlations,
    most_conflicting,
    pairs_of,
    rows_of,
)

NAMES = ("helpfulness", "-verbosity")


def measured(own: float, *, prompts: int = 20) -> dict[str, Any]:
    noise = 0.1 * np.random.default_rng(0).normal(size=prompts)
    rewards = {NAMES[0]: (own + noise).tolist(), NAMES[1]: (1.0 - own + noise).tolist()}
    return {"rewards": rewards, "characters": [10] * prompts}


def seed() -> dict[str, Any]:
    ways = {"start": 0.0, "DPO -verbosity": 0.0, "w=0.3": 0.5, "w=0.7": 0.8, "w=1": 1.0}
    terms = {way: {"modpo/implicit": 1.0, "modpo/margin": 0.5} for way in list(ways)[2:]}
    return {
        "objectives": list(NAMES),
        "correlations": {"verbosity": 0.4},
        "pairs": dict.fromkeys(NAMES, 3),
        "points": {
            **{way: measured(own) for way, own in ways.items()},
            "DPO helpfulness": measured(1.0),
        },
        "terms": terms,
        "endpoint_difference": 0.0,
    }


def test_front_is_told_with_intervals(tmp_path: Path) -> None:
    plot = tmp_path / "pictures" / "front.png"
    shown = summarise([seed(), seed()], plot=str(plot))
    assert [point["way"] for point in shown["points"]][2:5] == ["w=0.3", "w=0.7", "w=1"]
    point = shown["points"][3]
    assert point["gain"][NAMES[0]]["mean"] == pytest.approx(0.8)
    assert point["rewards"][NAMES[0]]["low"] < 0.8 < point["rewards"][NAMES[0]]["high"] + 0.1
    assert shown["order"] == {NAMES[0]: pytest.approx(1.0), NAMES[1]: pytest.approx(-1.0)}
    assert shown["hypervolume"]["sweep"] > shown["hypervolume"]["start"]
    assert shown["num_prompts"] == 20
    assert plot.stat().st_size > 1000
    json.dumps(shown)


def test_pairs_are_the_same_draw_for_every_reward() -> None:
    prompts = ["a"] * 4 + ["b"] * 4
    answers = [str(i) for i in range(8)]
    rising, falling = (
        pairs_of(prompts, answers, sign * np.arange(8.0), group=4, num=3, seed=0)
        for sign in (1, -1)
    )
    assert len(rising) == 6
    assert rising["chosen"] == falling["rejected"]
    for row in rising:
        fields: dict[str, Any] = dict(row)
        better, worse = (int(fields[side][0]["content"]) for side in ("chosen", "rejected"))
        assert better > worse
        assert better // 4 == worse // 4 == "ab".index(fields["prompt"][0]["content"])


def test_equal_answers_and_rewards_are_no_pair() -> None:
    made = pairs_of(["a"] * 3, ["x", "x", "y"], [0.0, 1.0, 1.0], group=3, num=9, seed=0)
    assert [row[0]["content"] for row in made["chosen"]] == ["y"]


def test_rows_are_whole_passes_and_a_draw_of_the_rest() -> None:
    pairs = pairs_of(["a"] * 4, list("wxyz"), np.arange(4.0), group=4, num=6, seed=0)
    assert len(pairs) == 6
    few, many = (rows_of(pairs, num, seed=0).to_list() for num in (4, 16))
    known = pairs.to_list()
    assert len(few) == 4
    assert [row for row in known if row in few] == few
    assert sorted(map(many.count, known)) == [2, 2, 3, 3, 3, 3]
    assert rows_of(pairs, 4, seed=0).to_list() == few
    assert any(rows_of(pairs, 4, seed=seed).to_list() != few for seed in (1, 2, 3))


def test_conflict_is_within_prompts() -> None:
    """A reward that only tells prompts apart does not conflict."""
    rewards = {
        "helpfulness": np.array([0.0, 1.0, 5.0, 6.0]),
        "depth": np.array([0.0, 2.0, 0.0, 2.0]),
        "verbosity": np.array([9.0, 9.5, 1.0, 1.0]),
    }
    found = correlations(rewards, Objective("helpfulness"), group=2)
    assert found["depth"] == pytest.approx(1.0)
    assert 0 < found["verbosity"] < 1
    assert most_conflicting(found) == Objective("-depth")
    assert most_conflicting({"a": -0.9, "b": 0.5}) == Objective("a")
    assert (Objective("-depth").name, Objective("-depth").sign) == ("depth", -1.0)


@pytest.mark.e2e
@pytest.mark.parametrize("margins", ["implicit", "explicit"])
def test_tiny_sweep_runs_and_ends_in_dpo(tmp_path: Path, margins: str) -> None:
    setting = Setting(
        margins=margins,
        weights="0.5",
        training_prompts=2,
        held_out=2,
        samples=4,
        pairs_per_prompt=2,
        max_tokens=8,
        seeds=1,
        steps=2,
        batch_size=2,
        lora_rank=2,
    )
    shown = run(setting, tmp_path)
    ways = [point["way"] for point in shown["points"]]
    assert ways == ["start", "DPO -verbosity", "w=0.5", "w=1", "DPO helpfulness"]
    assert shown["endpoint_difference"] == 0.0
    assert shown["points"][3]["rewards"] == shown["points"][4]["rewards"]
    assert shown["terms"]["w=0.5"]["modpo/margin"] > 0
    assert shown["terms"]["w=1"]["modpo/margin"] == 0
    assert [table["columns"][0] for table in shown["tables"]] == ["way", "way", "", "objective"]
