"""The order of examples in which those of a step have like lengths, so that little is padded."""

from __future__ import annotations

import random
from collections.abc import Sequence

# Steps whose examples are sorted by length together.
_SORTED_STEPS = 16


def in_steps_of_like_length(
    lengths: Sequence[int], *, size: int, order: random.Random
) -> list[int]:
    """Return places of examples in another order, in which those of a step have like lengths.

    Args:
        lengths: Of the examples.
        size: Examples of a step.
        order: Draws which steps hold what, and their order.
    """
    shuffled = order.sample(range(len(lengths)), len(lengths))
    ordered: list[int] = []
    for begin in range(0, len(shuffled), _SORTED_STEPS * size):
        part = sorted(shuffled[begin : begin + _SORTED_STEPS * size], key=lengths.__getitem__)
        steps = [part[i : i + size] for i in range(0, len(part), size)]
        for step in order.sample(steps, len(steps)):
            ordered += step
    return ordered
