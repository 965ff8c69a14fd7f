"""The evaluations of a run that people watch: few enough to be told again with every step."""

from __future__ import annotations

from steerward.protocol.fine_tuning import IterationProgress

_MOST = 256
"""Between the first and the last; beyond, every second of them is left out."""


class History:
    """Keeps the first evaluation, the last, and some of those between, evenly spaced.

    Args:
        evaluation_steps: Optimiser steps between two of them.
    """

    def __init__(self, evaluation_steps: int) -> None:
        self._distance = evaluation_steps
        self._kept: dict[int, IterationProgress] = {}
        self._last: IterationProgress | None = None

    @property
    def rows(self) -> list[IterationProgress]:
        """The evaluations, by step."""
        last = {} if self._last is None else {self._last.iteration: self._last}
        found = {**self._kept, **last}
        return [found[step] for step in sorted(found)]

    def add(self, one: IterationProgress) -> None:
        """Take an evaluation, in place of an earlier one of its step."""
        if self._last is None or one.iteration >= self._last.iteration:
            self._last = one
        if one.iteration % self._distance == 0:
            self._kept[one.iteration] = one
        if len(self._kept) > _MOST:
            self._distance *= 2
            self._kept = {
                step: kept for step, kept in self._kept.items() if step % self._distance == 0
            }
