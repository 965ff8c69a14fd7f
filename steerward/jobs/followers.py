"""Those who follow jobs as they run: how many, and that they go when the server ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from steerward.protocol.errors import Overloaded

# Each asks the database several times a second.
_MOST_SEATS = 64


class Followers:
    """Places for those who follow a job; it belongs on one event loop."""

    def __init__(self) -> None:
        self._num_taken = 0
        self._draining = asyncio.Event()

    @contextmanager
    def seat(self) -> Iterator[None]:
        """Hold a place.

        Raises:
            Overloaded: If all are taken.
        """
        if self._num_taken >= _MOST_SEATS:
            raise Overloaded(
                f"{self._num_taken} streams of events are open, limit {_MOST_SEATS}; close some, "
                "or ask for the list of events",
                retry_after_s=10.0,
            )
        self._num_taken += 1
        try:
            yield
        finally:
            self._num_taken -= 1

    @property
    def num_taken(self) -> int:
        """How many follow a job."""
        return self._num_taken

    @property
    def is_draining(self) -> bool:
        """Whether everybody should go: the server is about to end."""
        return self._draining.is_set()

    def begin_drain(self) -> None:
        """Let everybody go."""
        self._draining.set()

    async def rest(self, duration_s: float) -> None:
        """Return after some seconds, or at once when the server is about to end."""
        try:
            async with asyncio.timeout(duration_s):
                await self._draining.wait()
        except TimeoutError:
            pass
