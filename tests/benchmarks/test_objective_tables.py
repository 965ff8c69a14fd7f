"""Gains of runs are told in spreads of the start, by arm, seed and step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.objective_tables import draw_curves, gains_table, seeds_table, summarise
from steerward.training.align.run_folder import RunWriter

START = np.random.default_rng(0).normal(size=40)


def run_of(
    folder: Path, name: str, gains: Sequence[float], *, seed: int, idle: float = 0.5
) -> Path:
    """A run of two objectives; the second has ten times the spread of the first."""
    told = {"method": "grpo", "name": name, "objectives": ["one", "two"]}
    writer = RunWriter(folder, {**told, "settings": {"seed": seed}})
    for step in (0, 4):
        rewards = {
            objective: (scale * (START + gain * step / 4)).tolist()
            for objective, scale, gain in zip(("one", "two"), (1.0, 10.0), gains, strict=True)
        }
        writer.evaluate(step, rewards=rewards, characters=[10 + step] * len(START))
    for step in range(1, 5):
        metrics = {"step_time": 2.0, "cpu_s": float(step), "align/weights_ms": 0.5}
        writer.log(step, {**metrics, "align/frac_nonzero": idle})
    return folder


def test_gains_are_means_over_seeds_in_spreads(tmp_path: Path) -> None:
    folders = {
        "even": [run_of(tmp_path / f"e{i}", "even", (1.0, 1.0 + i), seed=i) for i in range(2)],
        "uneven": [run_of(tmp_path / f"u{i}", "uneven", (-1.0, 3.0), seed=i) for i in range(2)],
    }
    shown = summarise(folders)
    spread = float(START.std())
    assert shown["spreads"] == {"one": pytest.approx(spread), "two": pytest.approx(10 * spread)}
    even, uneven = shown["arms"]["even"], shown["arms"]["uneven"]
    assert even["gains"]["two"][-1]["mean"] == pytest.approx(1.5 / spread)
    assert even["gains_by_seed"][1]["two"] == pytest.approx(2.0 / spread)
    assert even["worst"]["objective"] == uneven["worst"]["objective"] == "one"
    assert uneven["uneven"]["mean"] == pytest.approx(4.0 / spread)
    assert (even["cpu_s"], even["nonzero"], even["characters"]) == (2.5, 0.5, [10, 14])
    difference = shown["differences"]["even"]["uneven"]
    assert difference["mean"] == pytest.approx(2.0 / spread)
    # Every prompt gains the same, so that no resample differs.
    assert difference["low"] == pytest.approx(difference["high"])
    assert [row[0] for row in gains_table(shown)["rows"]] == ["even", "uneven"]
    assert len(seeds_table(shown)["rows"]) == 4
    picture = tmp_path / "pictures" / "curves.png"
    draw_curves(shown, picture)
    assert picture.stat().st_size > 1000
