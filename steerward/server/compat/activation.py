"""Sigmoid, for the protocols whose own flag asks for it: numbers are raw else."""

from __future__ import annotations

import math
from collections.abc import Iterable


def sigmoids(values: Iterable[float]) -> list[float]:
    """Return each number between 0 and 1, in the same order of size."""
    return [_sigmoid(value) for value in values]


def _sigmoid(value: float) -> float:
    # Either branch keeps exp from overflowing.
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    return math.exp(value) / (1 + math.exp(value))
