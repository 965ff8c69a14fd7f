"""The timing of Pareto weights runs at a tiny size and finds what it says it measures."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import pareto_weights


def test_every_way_is_timed_for_every_size(tmp_path: Path) -> None:
    setting = pareto_weights.Setting(
        rounds=1, calls=1, objectives="2,4", batches="8", backward_rounds=1, backward_batch=4,
        tokens=4, layers=1, width=16,
    )  # fmt: skip
    result = pareto_weights.run(setting, tmp_path)
    assert set(result["microseconds"]["8"]) == set(result["backward"]) == {"2", "4"}
    assert all(value > 0 for value in result["microseconds"]["8"]["4"].values())
    rows = result["tables"][0]["rows"]
    assert [row[0] for row in rows] == ["8 samples, 2 objectives", "8 samples, 4 objectives"]


def test_growth_is_the_power_of_the_number_of_objectives() -> None:
    times = {
        str(n): {
            pareto_weights.VALUE: 3.0 * n,
            pareto_weights.WEIGHTS: 2.0 * n**0.5,
            pareto_weights.GRAM: 0.1 * n**2,
        }
        for n in (2, 5, 10, 100)
    }
    assert list(pareto_weights.exponents(times).values()) == pytest.approx([1.0, 0.5, 2.0])
    assert set(pareto_weights.exponents({"2": times["2"]}).values()) == {None}
