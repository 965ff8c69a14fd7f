"""The picture of a job: the fronts of all iterations, the scores by direction, and the judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.figure import Figure

_JUDGES = ("own score", "cosine with the prompt")


def draw_fronts(shown: Mapping[str, Any], path: Path) -> None:
    """Write a picture of a result of `rsf_front`."""
    figure = Figure(figsize=(15, 4.8), layout="constrained")
    front, by_angle, by_iteration = figure.subplots(1, 3)
    iterations = shown["iterations"]
    for place, one in enumerate(iterations):
        color = colormaps["viridis"](0.9 * (1 - place / max(1, len(iterations) - 1)))
        style = {
            "color": color,
            "label": f"iteration {one['iteration']}" if one["iteration"] else "start",
            "marker": "o",
            "markersize": 4,
            "linewidth": 1.2,
            "elinewidth": 0.6,
        }
        _front(front, one["points"], shown["objectives"], style)
        scores = [point["direction_score"] for point in one["points"]]
        by_angle.errorbar(shown["angles"], _means(scores), yerr=_bars(scores), **style)
    first, second = shown["objectives"]
    front.set_xlabel(f"{second}, standard deviations")
    front.set_ylabel(f"{first}, standard deviations")
    front.set_title(f"fronts on {shown['num_prompts']} prompts, with 95 % intervals")
    front.legend()
    by_angle.set_xlabel(f"degrees from {first} towards {second}")
    by_angle.set_ylabel("direction score")
    by_angle.set_title("what was selected by")
    by_angle.legend(fontsize=7)
    _by_iteration(by_iteration, iterations)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _front(
    axes: Any,
    points: Sequence[Mapping[str, Any]],
    objectives: Sequence[str],
    style: Mapping[str, Any],
) -> None:
    y, x = ([point["rewards"][name] for point in points] for name in objectives)
    axes.errorbar(_means(x), _means(y), xerr=_bars(x), yerr=_bars(y), **style)
    for end in (0, -1):
        axes.annotate(
            f"{points[end]['angle']:+g}°",
            (x[end]["mean"], y[end]["mean"]),
            textcoords="offset points",
            xytext=(5, 5),
            fontsize=7,
            color=style["color"],
        )


def _by_iteration(axes: Any, iterations: Sequence[Mapping[str, Any]]) -> None:
    numbers = [one["iteration"] for one in iterations]
    series = {"direction score": [one["direction_score"] for one in iterations]}
    for name in _JUDGES:
        if name in iterations[0]["judges"]:
            series[name] = [one["judges"][name]["value"] for one in iterations]
    for name, values in series.items():
        axes.errorbar(numbers, _means(values), yerr=_bars(values), label=name, marker="o")
    axes.set_xticks(numbers)
    axes.set_xlabel("iteration")
    axes.set_title("beside what nothing was selected by")
    axes.legend(fontsize=7)


def _means(values: Sequence[Mapping[str, float]]) -> list[float]:
    return [value["mean"] for value in values]


def _bars(values: Sequence[Mapping[str, float]]) -> list[list[float]]:
    return [
        [value["mean"] - value["low"] for value in values],
        [value["high"] - value["mean"] for value in values],
    ]
