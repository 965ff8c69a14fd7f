"""Bootstrap intervals of a share whose parts come in groups, such as instructions by prompt."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

_TAIL = 0.025


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval."""

    low: float
    high: float


def share_interval(groups: Sequence[tuple[int, int]], *, resamples: int, seed: int) -> Interval:
    """Return the percentile interval of the share of all parts that are met.

    Groups are drawn with replacement, as many as there are, and their parts are pooled: parts of
    one group, met and missed together more often than by chance, do not pass for independent.

    Args:
        groups: Of each group, how many of its parts are met and how many there are; at least
            one group, and none without parts.
        resamples: How often to draw. 1,000 put the ends right to about a tenth of the width.
        seed: The same seed gives the same interval.
    """
    order = random.Random(seed)
    shares: list[float] = []
    for _ in range(resamples):
        drawn = order.choices(groups, k=len(groups))
        shares.append(sum(met for met, _ in drawn) / sum(parts for _, parts in drawn))
    shares.sort()
    cut = math.floor(_TAIL * resamples)
    return Interval(shares[cut], shares[-1 - cut])
