"""What answers to evaluation prompts show of a policy: one point a direction.

Axis legend: P prompts, V directions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from steerward.jobs.rsf.samples import SampleRow
from steerward.jobs.rsf.statistics import (
    Interval,
    distinct_share,
    mean_interval,
    repetition,
)


@dataclass(frozen=True, slots=True)
class Point:
    """One direction."""

    direction: Mapping[str, float]
    direction_score: Interval
    rewards: Mapping[str, Interval]
    score: float | None
    """Mean of the reward model's own score: a weak witness, for it is made of the same rewards."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One policy; intervals are 95 %, by resampling prompts."""

    direction_score: Interval
    """Mean over directions."""
    points: Sequence[Point]
    score: float | None
    characters: float
    repetition: float
    """Mean share of three-word sequences of an answer that are repeats."""
    distinct: float
    """Share of different two-word sequences over all answers."""
    prompts: int

    def data(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def evaluate(rows: Sequence[SampleRow], num_directions: int) -> Evaluation | None:
    """Return what answers show; None if no prompt was answered under all directions.

    Args:
        rows: One answer for each prompt and direction.
        num_directions: That each prompt was answered under.
    """
    by_prompt: dict[int, dict[int, SampleRow]] = {}
    for row in rows:
        by_prompt.setdefault(row.number, {})[row.direction_index] = row
    # A prompt that could not be answered under each direction would shift their comparison.
    whole = [found for found in by_prompt.values() if len(found) == num_directions]
    if not whole:
        return None
    scores_PV = np.array(
        [[found[v].direction_score for v in range(num_directions)] for found in whole]
    )
    points = [_point([found[v] for found in whole], scores_PV[:, v]) for v in range(num_directions)]
    texts = [row.completion for found in whole for row in found.values()]
    own = [row.score for found in whole for row in found.values() if row.score is not None]
    return Evaluation(
        direction_score=mean_interval(scores_PV.mean(axis=1)),
        points=points,
        score=float(np.mean(own)) if own else None,
        characters=float(np.mean([len(text) for text in texts])),
        repetition=float(np.mean([repetition(text) for text in texts])),
        distinct=distinct_share(texts, 2),
        prompts=len(whole),
    )


def _point(rows: Sequence[SampleRow], scores_P: Any) -> Point:
    own = [row.score for row in rows if row.score is not None]
    return Point(
        direction=rows[0].direction,
        direction_score=mean_interval(scores_P),
        rewards={
            name: mean_interval(np.array([row.rewards[name] for row in rows]))
            for name in rows[0].rewards
        },
        score=float(np.mean(own)) if own else None,
    )
