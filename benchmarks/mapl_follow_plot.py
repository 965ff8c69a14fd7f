"""The picture of two ways to train a reward model: accuracies by step, with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


def draw_accuracies(
    points: Sequence[Mapping[str, Any]], ways: Sequence[str], measures: Sequence[str], path: Path
) -> None:
    """Write a picture of a result of `mapl_follow`: one chart for each measure.

    Args:
        points: With way, step, measure, mean, low and high.
        ways: To train, in order.
        measures: To draw, in order.
        path: Of the picture.
    """
    figure = Figure(figsize=(3.6 * len(measures), 3.6), layout="constrained")
    charts: Any = figure.subplots(1, len(measures), sharey=True, squeeze=False)
    for axes, measure in zip(charts[0], measures, strict=True):
        for way in ways:
            line = [one for one in points if (one["way"], one["measure"]) == (way, measure)]
            bars = [
                [one["mean"] - one["low"] for one in line],
                [one["high"] - one["mean"] for one in line],
            ]
            steps = [one["step"] for one in line]
            axes.errorbar(steps, [one["mean"] for one in line], yerr=bars, marker="o", label=way)
        axes.axhline(0.5, color="grey", linewidth=0.8, linestyle=":")
        axes.set_title(measure)
        axes.set_xlabel("optimiser steps")
    charts[0][0].set_ylabel("right, with 95 % intervals")
    charts[0][0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
