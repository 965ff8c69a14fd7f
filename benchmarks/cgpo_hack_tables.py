"""Tables and picture of the planted hack: what each arm earned, what it was worth, what broke."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import table

_RESAMPLES = 2000
_SHOWN = {
    "hacked": "hacked reward",
    "true": "true score",
    "violated": "share violated",
    "paid": "times the bonus is paid",
}


def summarise(found: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> dict[str, Any]:
    """Return points of each arm with intervals, its gains, and the tables.

    Args:
        found: By arm and seed what was measured: by step, a number for each prompt.
    """
    arms = {arm: _arm(seeds) for arm, seeds in found.items()}
    return {"arms": arms, "tables": _tables(arms)}


def _arm(seeds: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    numbers = np.random.default_rng(0)
    steps = [one["step"] for one in seeds[0]]
    values = {
        name: np.array([[one[name] for one in measured] for measured in seeds]) for name in _SHOWN
    }
    count = values["true"].shape[-1]
    resamples = numbers.integers(0, count, (_RESAMPLES, count))
    points = [
        {
            "step": step,
            **{
                name: _interval(one[:, place].mean(axis=0), resamples)
                for name, one in values.items()
            },
            "by_seed": {name: one[:, place].mean(axis=-1).tolist() for name, one in values.items()},
        }
        for place, step in enumerate(steps)
    ]
    gains = {
        name: _interval((one[:, -1] - one[:, 0]).mean(axis=0), resamples)
        for name, one in values.items()
    }
    return {"points": points, "gain": gains}


def _interval(values: Any, resamples: Any) -> dict[str, float]:
    low, high = np.quantile(values[resamples].mean(axis=1), [0.025, 0.975])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def _told(value: Mapping[str, float]) -> str:
    return f"{value['mean']:+.3f} ({value['low']:+.3f}..{value['high']:+.3f})"


def _tables(arms: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    columns = list(_SHOWN.values())
    ends = [
        [f"{arm}, step {point['step']}", *(_told(point[name]) for name in _SHOWN)]
        for arm, one in arms.items()
        for point in (one["points"][0], one["points"][-1])
    ]
    gains = [[arm, *(_told(one["gain"][name]) for name in _SHOWN)] for arm, one in arms.items()]
    return [
        table("held-out prompts, mean and 95 %", ["", *columns], ends),
        table("change from the first to the last step", ["", *columns], gains),
    ]


def draw(arms: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Write a picture: hacked reward, true score and violations by step, a line an arm."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    names = ("hacked", "true", "violated")
    for axes, name in zip(figure.subplots(1, len(names)), names, strict=True):
        for arm, one in arms.items():
            points = one["points"]
            means = [point[name]["mean"] for point in points]
            bars = [
                [point[name]["mean"] - point[name]["low"] for point in points],
                [point[name]["high"] - point[name]["mean"] for point in points],
            ]
            steps = [point["step"] for point in points]
            axes.errorbar(steps, means, yerr=bars, marker="o", capsize=2, label=arm)
        axes.set_title(_SHOWN[name])
        axes.set_xlabel("optimiser steps")
    figure.axes[0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
