"""Rewards that count only where another is high enough, judged on raw values.

GDPO (arXiv:2601.05242) pays for a short answer only if it is right: lowering the weight of the
easy reward alone was not enough. Thresholds on normalised rewards would move with the batch.

Axis legend: N samples, K objectives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from steerward.protocol.errors import InvalidRequest, UnknownObjective, brief


@dataclass(frozen=True, slots=True)
class Condition:
    """A column that counts as 0 unless another reaches a threshold."""

    column: str
    """What is conditioned."""
    on: str
    """Whose raw value decides."""
    threshold: float
    """Least value of `on` for which `column` counts."""

    def __post_init__(self) -> None:
        if self.column == self.on or not math.isfinite(self.threshold):
            raise InvalidRequest(
                f"column {brief(self.column)!r} cannot depend on {brief(self.on)!r} >= "
                f"{self.threshold}; name another column and a finite threshold",
                param="conditions",
            )


def conditioned(
    rewards_NK: Tensor, conditions: Sequence[Condition], *, names: Sequence[str]
) -> Tensor:
    """Return rewards as they count: 0 where a condition fails, else as they are.

    All conditions read the raw values given, not each other's results. Where the deciding column
    does not apply (NaN), nothing is known, and the conditioned one stays as it is.

    Raises:
        UnknownObjective: If a condition names a column that is not there.
    """
    counted_NK = rewards_NK.clone()
    for condition in conditions:
        column, decider = (_index(name, names) for name in (condition.column, condition.on))
        fails_N = (rewards_NK[:, decider] < condition.threshold) & ~rewards_NK[:, column].isnan()
        counted_NK[fails_N, column] = 0.0
    return counted_NK


def _index(name: str, names: Sequence[str]) -> int:
    if name not in names:
        raise UnknownObjective(
            f"a condition names the column {brief(name)!r}; the columns are "
            f"{', '.join(map(brief, names))}",
            param="conditions",
        )
    return names.index(name)
