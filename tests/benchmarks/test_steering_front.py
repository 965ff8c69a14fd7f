from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.steering_front import ANGLES, Setting, hypervolume, summarise

OBJECTIVES = ["helpfulness", "verbosity"]
SCALE = {"helpfulness": (0.0, 1.0), "verbosity": (1.0, 2.0)}


@pytest.mark.parametrize(
    ("points", "area"),
    [
        ([(1, 1)], 1.0),
        ([(2, 1), (1, 2)], 3.0),
        ([(2, 1), (1, 2), (1, 1)], 3.0),
        ([(-1, 5), (5, -1)], 0.0),
    ],
)
def test_hypervolume_is_the_area_that_points_dominate(
    points: list[tuple[float, float]], area: float
) -> None:
    assert hypervolume(points, (0, 0)) == area


def test_what_was_found_is_told_as_it_was(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0)

    def answers(angle: float, best: float) -> list[dict[str, Any]]:
        noise = numbers.normal(size=40) * 0.1
        return [
            {
                "prompt": f"p{i}",
                "text": "x" * 10,
                "characters": 10.0,
                "direction_score": best,
                "rewards": {"helpfulness": best, "verbosity": 1 + 2 * np.sin(angle) + n},
            }
            for i, n in enumerate(noise)
        ]

    found: dict[tuple[str, int | None], list[dict[str, Any]]] = {
        ("unsteered", None): answers(0.0, -1.0)
    }
    for way, best in (("prompt", 0.0), ("best_of", 1.0), ("neighbours", 0.5)):
        for angle in ANGLES:
            found[way, angle] = answers(np.radians(angle), best)
    plot = tmp_path / "front.png"
    result = summarise(found, OBJECTIVES, SCALE, Setting(plot=str(plot)))
    assert result["num_prompts"] == 40
    assert result["rank_correlation"] == pytest.approx(
        {"prompt": 1.0, "best_of": 1.0, "neighbours": 1.0}
    )
    assert result["hypervolume"]["best_of"] > result["hypervolume"]["prompt"]
    assert all(row["mean"] == pytest.approx(1.0) for row in result["best_of_less_prompt"])
    first = next(point for point in result["points"] if point["angle"] == -45)
    verbosity = first["rewards"]["verbosity"]
    assert verbosity["low"] < verbosity["mean"] < verbosity["high"]
    assert verbosity["mean"] == pytest.approx(np.sin(np.radians(-45)), abs=0.05)
    assert plot.stat().st_size > 1000
