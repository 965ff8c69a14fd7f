"""What the points of a sweep show: means with intervals, tables and the picture of the front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.command import table
from steerward.jobs.rsf.statistics import difference_interval, hypervolume, mean_interval

_START = "start"


def summarise(found: Sequence[Mapping[str, Any]], *, plot: str = "") -> dict[str, Any]:
    """Return points with intervals over prompts, of the mean over seeds, and what they show.

    Args:
        found: By seed, what was measured.
        plot: File for the picture; none if empty.
    """
    objectives: list[str] = found[0]["objectives"]
    points = [_point(found, way, objectives) for way in found[0]["points"]]
    sweep = [point for point in points if point["way"].startswith("w=")]
    means = [[point["rewards"][name]["mean"] for name in objectives] for point in points]
    reference = (np.min(means, axis=0) - 1.0).tolist()
    shown = {
        "objectives": objectives,
        "points": points,
        "reference_point": reference,
        "hypervolume": {
            "start": hypervolume(means[:1], reference),
            "ends": hypervolume(
                [m for m, p in zip(means, points, strict=True) if p["way"].startswith("DPO")],
                reference,
            ),
            "sweep": hypervolume(
                [m for m, p in zip(means, points, strict=True) if p in sweep], reference
            ),
        },
        "order": {name: _order(sweep, name) for name in objectives},
        "correlations": _mean([one["correlations"] for one in found]),
        "pairs": [one["pairs"] for one in found],
        "terms": {way: _mean([one["terms"][way] for one in found]) for way in found[0]["terms"]},
        "endpoint_difference": max(one["endpoint_difference"] for one in found),
        "num_prompts": len(found[0]["points"][_START]["characters"]),
    }
    if plot:
        _draw(points, objectives, Path(plot))
    return {**shown, "tables": _tables(shown)}


def _point(found: Sequence[Mapping[str, Any]], way: str, names: Sequence[str]) -> dict[str, Any]:
    """Return a way's mean rewards; prompts are the first axis, seeds the second."""
    measured = [one["points"][way] for one in found]
    started = [one["points"][_START] for one in found]
    rewards = {name: np.array([one["rewards"][name] for one in measured]).T for name in names}
    before = {name: np.array([one["rewards"][name] for one in started]).T for name in names}
    return {
        "way": way,
        "rewards": {name: asdict(mean_interval(rewards[name])) for name in names},
        "gain": {name: asdict(difference_interval(rewards[name], before[name])) for name in names},
        "by_seed": {name: rewards[name].mean(axis=0).tolist() for name in names},
        "characters": float(np.mean([one["characters"] for one in measured])),
    }


def _order(points: Sequence[Mapping[str, Any]], name: str) -> float:
    """Return the rank correlation of a reward with its place in the sweep."""
    means = np.array([point["rewards"][name]["mean"] for point in points])
    if len(means) < 2 or not np.ptp(means):
        return 0.0
    return float(np.corrcoef(np.arange(len(means)), means.argsort().argsort())[0, 1])


def _mean(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in values])) for name in values[0]}


def _told(value: Mapping[str, float]) -> str:
    return f"{value['mean']:+.3f} ({value['low']:+.3f}..{value['high']:+.3f})"


def _tables(shown: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = shown["objectives"]
    rows = [
        [
            point["way"],
            *(_told(point["rewards"][name]) for name in names),
            *(_told(point["gain"][name]) for name in names),
            f"{point['characters']:.0f}",
        ]
        for point in shown["points"]
    ]
    columns = ["way", *names, *(f"gain of {name}" for name in names), "characters"]
    terms = [
        [way, *(f"{value:.3f}" for value in found.values())]
        for way, found in shown["terms"].items()
    ]
    checks = [
        ["hypervolume, start", f"{shown['hypervolume']['start']:.3f}"],
        ["hypervolume, both ends", f"{shown['hypervolume']['ends']:.3f}"],
        ["hypervolume, sweep", f"{shown['hypervolume']['sweep']:.3f}"],
        *(
            [f"rank correlation of {name} with its weight", f"{sign * shown['order'][name]:+.2f}"]
            for name, sign in zip(names, (1, -1), strict=True)
        ),
        ["largest difference of w=1 from DPO", f"{shown['endpoint_difference']:.1e}"],
    ]
    conflict = [[name, f"{value:+.2f}"] for name, value in shown["correlations"].items()]
    return [
        table("rewards of held-out prompts, standard deviations", columns, rows),
        table("terms of the logit", ["way", "|beta * D_pi|", "|w . D_r|"], terms),
        table("checks", ["", "value"], checks),
        table(f"correlation with {names[0]} among samples", ["objective", "value"], conflict),
    ]


def _draw(points: Sequence[Mapping[str, Any]], names: Sequence[str], path: Path) -> None:
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes: Any = figure.subplots()
    first, second = names
    groups = {
        "MODPO": ("#3366aa", [point for point in points if point["way"].startswith("w=")]),
        "DPO": ("#bb4433", [point for point in points if point["way"].startswith("DPO")]),
        "start": ("#777", [point for point in points if point["way"] == _START]),
    }
    for label, (colour, own) in groups.items():
        x, y = ([point["rewards"][name]["mean"] for point in own] for name in (second, first))
        axes.errorbar(
            x,
            y,
            xerr=_bars(own, second),
            yerr=_bars(own, first),
            color=colour,
            marker="o",
            markersize=4,
            linestyle="-" if label == "MODPO" else "none",
            elinewidth=0.6,
            label=label,
        )
        for place, point in enumerate(own):
            # Above and below by turns, and DPO over the weight that equals it.
            height = 18 if label == "DPO" else (-13, 6)[place % 2]
            axes.annotate(
                point["way"], (x[place], y[place]), textcoords="offset points", xytext=(4, height)
            )
    axes.margins(x=0.12)
    axes.set_xlabel(f"{second}, standard deviations")
    axes.set_ylabel(f"{first}, standard deviations")
    axes.set_title("held-out prompts, with 95 % intervals")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _bars(points: Sequence[Mapping[str, Any]], name: str) -> list[list[float]]:
    rewards = [point["rewards"][name] for point in points]
    return [
        [reward["mean"] - reward["low"] for reward in rewards],
        [reward["high"] - reward["mean"] for reward in rewards],
    ]
