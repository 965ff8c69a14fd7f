"""What a report says of runs, as numbers with 95 % intervals. Free of torch.

Intervals are percentile bootstraps over prompts, the same resamples for all runs, steps and
objectives. A gain is told in spreads: divided by the standard deviation over prompts of the start
policy's rewards, one unit an objective for all runs. That scale, and the default reference point
of the hypervolume, are ours.

Axis legend: E evaluations, P held-out prompts, K objectives, B resamples, R runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steerward.protocol.errors import InvalidRequest, brief
from steerward.training.align.report.hypervolume import hypervolume
from steerward.training.align.report.runs import Floats, PooledRun, nan_mean

_RESAMPLES = 2000
# The volume is computed anew for each.
_VOLUME_RESAMPLES = 300
MOST_FRONT_OBJECTIVES = 6
"""With more, no fronts are drawn and no hypervolume is computed."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A number with what it may be."""

    mean: float
    low: float
    high: float


class PromptBootstrap:
    """Resamples prompts, the same ones for everything that is asked of it.

    Args:
        num_prompts: P.
        resamples: B.
        seed: Of the resampling.
    """

    def __init__(self, num_prompts: int, *, resamples: int = _RESAMPLES, seed: int = 0) -> None:
        draws = np.random.default_rng(seed).integers(0, num_prompts, (resamples, num_prompts))
        self._weights_BP = np.stack([np.bincount(row, minlength=num_prompts) for row in draws])

    def means(self, values: Floats) -> Floats:
        """Return the mean over the first axis, P, in each resample; NaN where nothing applies."""
        flat = values.reshape(len(values), -1)
        is_there = ~np.isnan(flat)
        sums = self._weights_BP @ np.where(is_there, flat, 0.0)
        counts = self._weights_BP @ is_there.astype(np.float64)
        found = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
        return found.reshape(-1, *values.shape[1:])

    def interval(self, values_P: Floats) -> Interval:
        """Return the mean over prompts of what is there.

        Raises:
            InvalidRequest: If nothing is.
        """
        known_P = values_P[~np.isnan(values_P)]
        if not len(known_P):
            raise InvalidRequest(
                "an objective applies to no prompt both at the start and later; leave it out of "
                "the objectives"
            )
        return interval_of(float(known_P.mean()), self.means(values_P))


def interval_of(mean: float, resampled_B: Floats) -> Interval:
    """Return a number with the interval that its resamples give."""
    known_B = resampled_B[~np.isnan(resampled_B)]
    low, high = np.quantile(known_B, [0.025, 0.975])
    return Interval(mean, float(low), float(high))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs with what they are measured by."""

    runs: list[PooledRun]
    objectives: list[str]
    units_K: list[float | None]
    """Standard deviation of the start policy's rewards; None where it is 0."""
    start_K: list[float]
    """Mean reward of the start policies."""
    reference_K: list[float] | None
    """Where hypervolumes begin, in units of the rewards; None where there are none."""
    bootstrap: PromptBootstrap

    @property
    def has_units(self) -> bool:
        """Whether every objective has a spread at the start."""
        return all(unit is not None for unit in self.units_K)

    def spreads(self, means: Floats) -> Floats:
        """Return mean rewards (..., K) as spreads above the start policy."""
        return (means - np.asarray(self.start_K)) / np.asarray(self.units_K, dtype=np.float64)


def compare(
    runs: list[PooledRun], objectives: Sequence[str], reference: Mapping[str, float] | None
) -> Comparison:
    """Return what runs are measured by.

    Args:
        runs: With the same prompts.
        objectives: K names.
        reference: Reward of each objective where hypervolumes begin. Default: the lowest of all
            runs' last means and of the start, less one spread.

    Raises:
        InvalidRequest: If the reference does not name the objectives, or is not finite.
    """
    start_K = np.mean([_mean(run.rewards_EPK[0]) for run in runs], axis=0)
    variance_K = np.mean([run.start_variance_K for run in runs], axis=0)
    units_K = [math.sqrt(value) if value > 0.0 else None for value in variance_K]
    if reference is not None:
        _check_reference(reference, objectives)
        reference_K = [float(reference[name]) for name in objectives]
    elif all(unit is not None for unit in units_K):
        lowest_K = np.min([start_K, *(_mean(run.rewards_EPK[-1]) for run in runs)], axis=0)
        reference_K = (lowest_K - np.asarray(units_K, dtype=np.float64)).tolist()
    else:
        reference_K = None
    return Comparison(
        runs,
        list(objectives),
        units_K,
        start_K.tolist(),
        reference_K,
        PromptBootstrap(runs[0].rewards_EPK.shape[1]),
    )


def _check_reference(reference: Mapping[str, float], objectives: Sequence[str]) -> None:
    if set(reference) != set(objectives):
        raise InvalidRequest(
            f"the reference names {', '.join(map(brief, reference))}, and the objectives are "
            f"{', '.join(objectives)}; give one reward for each"
        )
    for name, value in reference.items():
        if not math.isfinite(value):
            raise InvalidRequest(f"the reference of {brief(name)} is {value}; give a number")


def run_numbers(run: PooledRun, comparison: Comparison) -> dict[str, Any]:
    """Return what is told of one run."""
    best = _best(run, comparison)
    return {
        "method": run.method,
        "name": run.name,
        "folders": [folder.name for folder in run.folders],
        "seeds": len(run.folders),
        "steps": run.steps,
        "start": _evaluation(run, 0, comparison),
        "last": _evaluation(run, len(run.steps) - 1, comparison),
        "best": None if best is None else _evaluation(run, best, comparison),
        "curves": {
            name: [comparison.bootstrap.interval(values_P) for values_P in run.rewards_EPK[:, :, k]]
            for k, name in enumerate(comparison.objectives)
        },
        "characters": [comparison.bootstrap.interval(values_P) for values_P in run.characters_EP],
    }


def _evaluation(run: PooledRun, e: int, comparison: Comparison) -> dict[str, Any]:
    """Return rewards and gains of an evaluation."""
    bootstrap, names = comparison.bootstrap, comparison.objectives
    # Paired by prompt: what differs between prompts does not blur the gain.
    gains_PK = run.rewards_EPK[e] - run.rewards_EPK[0]
    spreads: dict[str, Interval | None] = {}
    for k, (name, unit) in enumerate(zip(names, comparison.units_K, strict=True)):
        spreads[name] = None if unit is None else bootstrap.interval(gains_PK[:, k] / unit)
    return {
        "step": run.steps[e],
        "rewards": {
            name: bootstrap.interval(run.rewards_EPK[e, :, k]) for k, name in enumerate(names)
        },
        "gains": {name: bootstrap.interval(gains_PK[:, k]) for k, name in enumerate(names)},
        "gains_in_spreads": spreads,
        "worst": _worst(gains_PK, comparison),
        "characters": bootstrap.interval(run.characters_EP[e]),
        "characters_gain": bootstrap.interval(run.characters_EP[e] - run.characters_EP[0]),
    }


def _worst(gains_PK: Floats, comparison: Comparison) -> dict[str, Any] | None:
    """Return the objective that gained least, in spreads; None where one has no spread."""
    if not comparison.has_units:
        return None
    scaled_PK = gains_PK / np.asarray(comparison.units_K, dtype=np.float64)
    mean_K = _mean(scaled_PK)
    k = int(mean_K.argmin())
    lowest_B = comparison.bootstrap.means(scaled_PK).min(axis=-1)
    return {
        "objective": comparison.objectives[k],
        "gain_in_spreads": interval_of(float(mean_K[k]), lowest_B),
    }


def _best(run: PooledRun, comparison: Comparison) -> int | None:
    """Return the evaluation with the highest mean gain in spreads, over all objectives."""
    if not comparison.has_units:
        return None
    gains_E = [comparison.spreads(_mean(one_PK)).mean() for one_PK in run.rewards_EPK]
    return int(np.argmax(gains_E))


@dataclass(frozen=True, slots=True)
class Volumes:
    """Hypervolumes in spreads."""

    methods: dict[str, Interval]
    """Of the last means of a method's runs."""
    start: Interval
    """Of the start policy alone."""


def volumes(comparison: Comparison) -> Volumes | None:
    """Return the hypervolume of each method, and that of the start.

    None where there is one objective, more than `MOST_FRONT_OBJECTIVES`, or one without spread.
    """
    is_drawn = 2 <= len(comparison.objectives) <= MOST_FRONT_OBJECTIVES
    if comparison.reference_K is None or not comparison.has_units or not is_drawn:
        return None
    groups: dict[str, list[Floats]] = {}
    for run in comparison.runs:
        groups.setdefault(run.method, []).append(run.rewards_EPK[-1])
    return Volumes(
        {method: _volume(rewards, comparison) for method, rewards in groups.items()},
        _volume([_starts(comparison)], comparison),
    )


def start_interval(comparison: Comparison, name: str) -> Interval:
    """Return the mean reward of the start policy: over runs, where these began several times."""
    k = comparison.objectives.index(name)
    return comparison.bootstrap.interval(_starts(comparison)[:, k])


def _starts(comparison: Comparison) -> Floats:
    return nan_mean(np.stack([run.rewards_EPK[0] for run in comparison.runs]), axis=0)


def _volume(rewards: Sequence[Floats], comparison: Comparison) -> Interval:
    reference = comparison.spreads(np.asarray(comparison.reference_K)).tolist()
    points_RK = np.stack([comparison.spreads(_mean(one_PK)) for one_PK in rewards])
    resampled_BRK = np.stack(
        [comparison.spreads(comparison.bootstrap.means(one_PK)) for one_PK in rewards], axis=1
    )[:_VOLUME_RESAMPLES]
    # A resample may hold no prompt that an objective applies to; it says nothing.
    known_BRK = resampled_BRK[~np.isnan(resampled_BRK).any(axis=(-1, -2))]
    resampled = [hypervolume(points.tolist(), reference) for points in known_BRK]
    return interval_of(hypervolume(points_RK.tolist(), reference), np.asarray(resampled))


def _mean(values_PK: Floats) -> Floats:
    """Return the mean over prompts of what is there."""
    return np.asarray([column[~np.isnan(column)].mean() for column in values_PK.T])
