"""Wall time by activity, where activities overlap."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class Clock:
    """Charges each moment to one activity: the first, in order, that is going on then.

    Args:
        order: Names of the activities, the one that is charged where several overlap first.
    """

    def __init__(self, order: Sequence[str]) -> None:
        self._order = order
        self._going_on: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}
        self._told: dict[str, float] = {}
        self._changed_at = time.perf_counter()

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds charged so far, by activity."""
        self._charge()
        return dict(self._seconds)

    def lap(self) -> dict[str, float]:
        """Return the seconds charged since the last call, by activity."""
        self._charge()
        found = {name: spent - self._told.get(name, 0.0) for name, spent in self._seconds.items()}
        self._told = dict(self._seconds)
        return found

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        """Charge what goes on inside to an activity."""
        self._charge()
        self._going_on[name] += 1
        try:
            yield
        finally:
            self._charge()
            self._going_on[name] -= 1

    def _charge(self) -> None:
        now = time.perf_counter()
        current = next((name for name in self._order if self._going_on[name]), None)
        if current is not None:
            self._seconds[current] = self._seconds.get(current, 0.0) + now - self._changed_at
        self._changed_at = now
