"""The picture of a steering front: two rewards against each other, and each against the angle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

_COLOURS = {"prompt": "#3366aa", "best_of": "#bb4433", "neighbours": "#448844", "unsteered": "#777"}


def draw_front(points: Sequence[Mapping[str, Any]], objectives: Sequence[str], path: Path) -> None:
    """Write a picture of points as `steering_front` gives them."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    front, by_angle = figure.subplots(1, 2)
    first, second = objectives
    for way, colour in _COLOURS.items():
        own = [point for point in points if point["way"] == way]
        x, y = ([point["rewards"][name]["mean"] for point in own] for name in (second, first))
        front.errorbar(
            x,
            y,
            xerr=_bars(own, second),
            yerr=_bars(own, first),
            color=colour,
            marker="o" if len(own) > 1 else "s",
            markersize=4,
            linewidth=1.2,
            elinewidth=0.6,
            label=way,
        )
        for point, a, b in zip(own, x, y, strict=True):
            if point["angle"] in (-45, 45):
                front.annotate(
                    f"{point['angle']:+d}°", (a, b), textcoords="offset points", xytext=(5, 5)
                )
        if len(own) > 1:
            angles = [point["angle"] for point in own]
            by_angle.plot(angles, x, color=colour, label=f"{second}, {way}")
            by_angle.plot(angles, y, color=colour, linestyle="--", label=f"{first}, {way}")
    front.set_xlabel(f"{second}, standard deviations")
    front.set_ylabel(f"{first}, standard deviations")
    front.set_title("fronts, with 95 % intervals")
    front.legend()
    by_angle.set_xlabel(f"degrees from {first} towards {second}")
    by_angle.set_ylabel("mean reward, standard deviations")
    by_angle.set_title("what the angle does")
    by_angle.legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _bars(points: Sequence[Mapping[str, Any]], name: str) -> list[list[float]]:
    rewards = [point["rewards"][name] for point in points]
    return [
        [reward["mean"] - reward["low"] for reward in rewards],
        [reward["high"] - reward["mean"] for reward in rewards],
    ]
