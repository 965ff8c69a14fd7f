"""What runs of several arms gained on each objective: numbers with intervals, tables, curves.

A gain is told in spreads: divided by the standard deviation over prompts of the start policy's
rewards. Intervals are 95 %, of the mean over seeds, by resampling prompts.

Axis legend: E evaluations, P held-out prompts, K objectives, B resamples.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import table
from benchmarks.objective_runs import WEIGHTS_MS
from steerward.training.align.report.numbers import Comparison, compare, interval_of, run_numbers
from steerward.training.align.report.runs import Floats, PooledRun, pooled, read_runs
from steerward.training.align.run_folder import read_run

_LOGGED = {
    "step_s": "step_time",
    "cpu_s": "cpu_s",
    WEIGHTS_MS: f"align/{WEIGHTS_MS}",
    "nonzero": "align/frac_nonzero",
}


def summarise(folders: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """Return what each arm gained, how evenly, and how long its steps took.

    Args:
        folders: Of the runs of each arm, one a seed.
    """
    runs = read_runs([folder for found in folders.values() for folder in found], None)
    objectives = list(runs[0].settings.objectives)
    comparison = compare(pooled(runs, objectives), objectives, None)
    arms = {run.name: _arm(run, comparison, folders[run.name]) for run in comparison.runs}
    return {
        "objectives": objectives,
        "spreads": dict(zip(objectives, comparison.units_K, strict=True)),
        "num_prompts": comparison.runs[0].rewards_EPK.shape[1],
        "arms": arms,
        "differences": _differences(comparison),
    }


def _arm(run: PooledRun, comparison: Comparison, folders: Sequence[Path]) -> dict[str, Any]:
    numbers = run_numbers(run, comparison)
    gains_EPK = _gains(run, comparison)
    bootstrap = comparison.bootstrap
    last_BK = bootstrap.means(gains_EPK[-1])
    last_K = gains_EPK[-1].mean(axis=0)
    return {
        "steps": run.steps,
        "gains": {
            name: [asdict(bootstrap.interval(values_P)) for values_P in gains_EPK[:, :, k]]
            for k, name in enumerate(comparison.objectives)
        },
        "gains_by_seed": [_gains_of(folder, comparison) for folder in folders],
        "worst": {
            "objective": numbers["last"]["worst"]["objective"],
            **asdict(numbers["last"]["worst"]["gain_in_spreads"]),
        },
        "uneven": asdict(interval_of(float(np.ptp(last_K)), np.ptp(last_BK, axis=-1))),
        "characters": [one.mean for one in numbers["characters"]],
        **{name: _median(folders, key) for name, key in _LOGGED.items()},
    }


def _gains(run: PooledRun, comparison: Comparison) -> Floats:
    """Return gains in spreads, (E, P, K)."""
    units_K = np.asarray(comparison.units_K, dtype=np.float64)
    return (run.rewards_EPK - run.rewards_EPK[0]) / units_K


def _gains_of(folder: Path, comparison: Comparison) -> dict[str, float]:
    (run,) = pooled([read_run(folder)], comparison.objectives)
    last_K = _gains(run, comparison)[-1].mean(axis=0)
    return dict(zip(comparison.objectives, last_K.tolist(), strict=True))


def _median(folders: Sequence[Path], key: str) -> float:
    logged = [one.metrics.get(key) for folder in folders for one in read_run(folder).log]
    return statistics.median(value for value in logged if value is not None)


def _differences(comparison: Comparison) -> dict[str, dict[str, dict[str, float]]]:
    """Return how much more the worst objective of each arm gained than that of each other.

    The same prompts are resampled for both, and the worst is that of each resample.
    """
    means: dict[str, float] = {}
    lowest: dict[str, Floats] = {}
    for run in comparison.runs:
        gains_PK = _gains(run, comparison)[-1]
        means[run.name] = float(gains_PK.mean(axis=0).min())
        lowest[run.name] = comparison.bootstrap.means(gains_PK).min(axis=-1)
    return {
        one: {
            other: asdict(interval_of(means[one] - means[other], lowest[one] - lowest[other]))
            for other in means
            if other != one
        }
        for one in means
    }


def told(value: Mapping[str, float]) -> str:
    """Return a mean with its interval as text."""
    return f"{value['mean']:+.2f} ({value['low']:+.2f}..{value['high']:+.2f})"


def gains_table(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table of all objectives' gains at the end."""
    names = shown["objectives"]
    rows = [
        [
            arm,
            *(told(one["gains"][name][-1]) for name in names),
            told(one["uneven"]),
            f"{one['characters'][0]:.0f} to {one['characters'][-1]:.0f}",
        ]
        for arm, one in shown["arms"].items()
    ]
    title = "gain on held-out prompts from start to end, standard deviations of the start"
    return table(title, ["", *names, "most less least", "characters"], rows)


def seeds_table(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table of gains of each seed."""
    names = shown["objectives"]
    rows = [
        [f"{arm}, seed {seed}", *(f"{gains[name]:+.2f}" for name in names)]
        for arm, one in shown["arms"].items()
        for seed, gains in enumerate(one["gains_by_seed"])
    ]
    return table("gain of each seed", ["", *names], rows)


def draw_curves(shown: Mapping[str, Any], path: Path) -> None:
    """Write a picture: the gain of each objective by step, a line an arm."""
    from matplotlib.figure import Figure

    names = shown["objectives"]
    figure = Figure(figsize=(3.6 * len(names), 3.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), sharey=True), names, strict=True):
        axes.axhline(0.0, color="#999", linewidth=0.8)
        for arm, one in shown["arms"].items():
            points = one["gains"][name]
            means = [point["mean"] for point in points]
            bars = [
                [point["mean"] - point["low"] for point in points],
                [point["high"] - point["mean"] for point in points],
            ]
            axes.errorbar(one["steps"], means, yerr=bars, marker="o", capsize=2, label=arm)
        axes.set_title(name.replace("_", " "))
        axes.set_xlabel("optimiser steps")
    figure.axes[0].set_ylabel("gain, standard deviations of the start")
    figure.axes[0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
