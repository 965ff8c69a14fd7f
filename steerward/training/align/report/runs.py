"""Runs side by side: seeds of one run pooled, everything resampled by prompts. Free of torch.

Axis legend: S seeds, E evaluations, P held-out prompts, K objectives, B resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from steerward.protocol.errors import DatasetRefused, InvalidRequest, UnknownObjective, brief
from steerward.training.align.run_folder import Run, read_run

# Instructions are part of the prompts that MAPL is measured on.
_ASKED = (
    ", and to runs of MAPL the same held_out_kinds, held_out_kinds_share, min_instructions, "
    "max_instructions and max_tokens; what it is compared with is mapl with both weights 0"
)

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PooledRun:
    """A run, or the mean over seeds of several runs of one method and name."""

    method: str
    name: str
    folders: list[Path]
    steps: list[int]
    """Of the evaluations that all seeds have; the first is 0."""
    rewards_EPK: Floats
    """Mean over seeds; NaN where an objective does not apply to a prompt."""
    characters_EP: Floats
    start_variance_K: Floats
    """Variance over prompts of the start policy's rewards, mean over seeds."""

    @property
    def label(self) -> str:
        """What it is called in tables."""
        return self.method if self.name == self.method else f"{self.method}: {self.name}"


def read_runs(folders: Sequence[Path], objectives: Sequence[str] | None) -> list[Run]:
    """Return runs that can be compared.

    Args:
        folders: Of the runs, each once.
        objectives: That are compared; all runs must have them. Without, all runs must have the
            same ones.

    Raises:
        DatasetRefused: If a folder is no run, or a run has no evaluation of its start.
        InvalidRequest: If there are none, one is given twice, or objectives or prompts differ.
    """
    if not folders or len({folder.resolve() for folder in folders}) < len(folders):
        raise InvalidRequest("give at least one folder of a run, and each only once")
    runs = [read_run(folder) for folder in folders]
    for run in runs:
        if not run.evaluations or run.evaluations[0].step != 0:
            raise DatasetRefused(
                f"{run.folder} has no evaluation of the start policy (step 0), so no gain can be "
                "told; evaluate held-out prompts before training"
            )
    _check_objectives(runs, objectives)
    first = runs[0]
    for run in runs:
        _check_prompts(first, run)
    return runs


def pooled(runs: Sequence[Run], objectives: Sequence[str]) -> list[PooledRun]:
    """Return runs of one method and name as one, in the order of their first folders.

    Raises:
        InvalidRequest: If two of them have the same seed, or differ in more than that.
        DatasetRefused: If an objective applies to no prompt.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.settings.method, run.settings.name), []).append(run)
    for (_, name), group in groups.items():
        _check_group(name, group)
    return [_pool(group, objectives) for group in groups.values()]


def _check_prompts(first: Run, run: Run) -> None:
    """Refuse runs that were measured on other prompts."""
    asked = _ASKED if "mapl" in {one.settings.method for one in (first, run)} else ""
    counts = [len(one.evaluations[0].characters) for one in (first, run)]
    if counts[0] != counts[1]:
        raise InvalidRequest(
            f"{run.folder} was evaluated on {counts[1]} prompts, {first.folder} on {counts[0]}; "
            "only runs with the same held-out prompts can be compared: give the same validation "
            f"file and evaluation_prompts to both{asked}"
        )
    digests = {(one.settings.model_extra or {}).get("held_out_digest") for one in (first, run)}
    if None not in digests and len(digests) > 1:
        raise InvalidRequest(
            f"{run.folder} was evaluated on other held-out prompts than {first.folder}; give the "
            f"same validation file to both{asked}"
        )


def _check_objectives(runs: Sequence[Run], objectives: Sequence[str] | None) -> None:
    if objectives is not None:
        if not objectives or len(set(objectives)) < len(objectives):
            raise InvalidRequest("objectives must be given each once, and at least one")
        for run in runs:
            unknown = [name for name in objectives if name not in run.settings.objectives]
            if unknown:
                raise UnknownObjective(
                    f"{run.folder} has no {', '.join(map(brief, unknown))}; its objectives are "
                    f"{', '.join(run.settings.objectives)}"
                )
        return
    if not common_objectives(runs):
        told = "; ".join(f"{run.folder}: {', '.join(run.settings.objectives)}" for run in runs)
        raise InvalidRequest(
            f"these runs have no objective in common, so they cannot be compared: {told}; log the "
            "same one in all of them (logged)"
        )


def common_objectives(runs: Sequence[Run]) -> list[str]:
    """Return the objectives that all runs were measured by, in the order of the first."""
    common = set.intersection(*(set(run.settings.objectives) for run in runs))
    return [name for name in runs[0].settings.objectives if name in common]


def _check_group(name: str, group: Sequence[Run]) -> None:
    """Refuse to pool runs that are not seeds of one."""
    seeds: dict[int, Path] = {}
    for run in group:
        own, first = _optimiser_settings(run), _optimiser_settings(group[0])
        different = sorted(
            key
            for key in own.keys() | first.keys()
            if key != "seed" and own.get(key) != first.get(key)
        )
        if different:
            raise InvalidRequest(
                f"{group[0].folder} and {run.folder} are both runs of {brief(name)!r} and "
                f"differ in {', '.join(different)}; name runs apart that differ in more than "
                "their seed"
            )
        seed = own.get("seed")
        if not isinstance(seed, int):
            continue
        if seed in seeds:
            raise InvalidRequest(
                f"{seeds[seed]} and {run.folder} are both runs of {brief(name)!r} with seed "
                f"{seed}; two of the same say no more than one: leave one out, or name them apart"
            )
        seeds[seed] = run.folder


def _optimiser_settings(run: Run) -> dict[str, Any]:
    """Return what was set, without where the run lies: `settings` of the file, and its seed."""
    extra = run.settings.model_extra or {}
    nested = extra.get("settings")
    found = dict(cast("dict[str, Any]", nested)) if isinstance(nested, dict) else {}
    found.pop("out", None)
    return {"seed": extra["seed"], **found} if "seed" in extra else found


def _pool(group: Sequence[Run], objectives: Sequence[str]) -> PooledRun:
    common = set.intersection(*({one.step for one in run.evaluations} for run in group))
    steps = sorted(common)
    rewards_SEPK = np.stack([_rewards(run, steps, objectives) for run in group])
    start_SPK = rewards_SEPK[:, 0]
    characters = [
        [one.characters for one in run.evaluations if one.step in common] for run in group
    ]
    return PooledRun(
        method=group[0].settings.method,
        name=group[0].settings.name,
        folders=[run.folder for run in group],
        steps=steps,
        rewards_EPK=nan_mean(rewards_SEPK, axis=0),
        characters_EP=np.asarray(characters, dtype=np.float64).mean(axis=0),
        start_variance_K=_variance(start_SPK).mean(axis=0),
    )


def _rewards(run: Run, steps: Sequence[int], objectives: Sequence[str]) -> Floats:
    by_step = {one.step: one for one in run.evaluations}
    rewards_EPK = np.asarray(
        [
            np.asarray([by_step[step].rewards[name] for name in objectives], dtype=np.float64).T
            for step in steps
        ]
    )
    for e, step in enumerate(steps):
        for k, name in enumerate(objectives):
            if np.isnan(rewards_EPK[e, :, k]).all():
                raise DatasetRefused(
                    f"{run.folder}: at step {step}, {brief(name)} applies to no prompt; leave it "
                    "out of the objectives"
                )
    return rewards_EPK


def _variance(values_SPK: Floats) -> Floats:
    """Return the variance over prompts, of those that have a value."""
    centred = values_SPK - nan_mean(values_SPK, axis=1)[:, np.newaxis]
    return nan_mean(centred**2, axis=1)


def nan_mean(values: Floats, *, axis: int) -> Floats:
    """Return the mean over an axis of what is there; NaN where nothing is."""
    is_there = ~np.isnan(values)
    counts = is_there.sum(axis=axis)
    sums = np.where(is_there, values, 0.0).sum(axis=axis)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
