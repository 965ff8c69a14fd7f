"""Verdicts of a batch of several tasks, and what each judge passed and failed of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from steerward.training.align.cgpo.tasks import Task


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What the judges of all tasks said of a batch."""

    satisfied: list[bool]
    """Of each sample; False for those that no task uses."""
    counts: Counter[str]
    """By `<task>/<judge>/<verdict>`: how often a judge gave each verdict, None left out."""


def judge_batch(
    tasks: Sequence[Task],
    places: Sequence[int | None],
    *,
    prompts: Sequence[Any],
    completions: Sequence[Any],
    rows: Sequence[Mapping[str, Any]],
) -> Verdicts:
    """Return the verdicts of each task's judges on its samples.

    Args:
        tasks: Of the run.
        places: Place of each sample's task among them; None for samples that are not used.
        prompts: Of the samples.
        completions: Of the samples.
        rows: Of the dataset, one for each sample.

    Raises:
        SteerwardError: What judges raise, for example when they fail too often.
    """
    satisfied = [False] * len(places)
    counts: Counter[str] = Counter()
    for place, task in enumerate(tasks):
        own = [i for i, found in enumerate(places) if found == place]
        if not own:
            continue
        if task.judges is None:
            passes: Sequence[bool] = [True] * len(own)
        else:
            judged = task.judges.judge(
                [prompts[i] for i in own],
                [completions[i] for i in own],
                rows=[rows[i] for i in own],
            )
            passes = judged.satisfied
            for judge, verdicts in judged.verdicts.items():
                given = [verdict for verdict in verdicts if verdict is not None]
                counts.update(f"{task.name}/{judge}/{verdict}" for verdict in given)
        for i, passed in zip(own, passes, strict=True):
            satisfied[i] = passed
    return Verdicts(satisfied, counts)


def judge_metrics(counts: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """Return the share that each judge passed, and on which it failed itself, where it applied.

    Args:
        counts: Of `Verdicts`, one of each process.
    """
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    metrics: dict[str, float] = {}
    for name in sorted({key.rpartition("/")[0] for key in total}):
        applied = sum(total[f"{name}/{verdict}"] for verdict in (1, 0, -1))
        task, _, judge = name.partition("/")
        metrics[f"cgpo/{task}/passed/{judge}"] = total[f"{name}/1"] / applied
        metrics[f"cgpo/{task}/judge_failed/{judge}"] = total[f"{name}/-1"] / applied
    return metrics
