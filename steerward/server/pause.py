"""Holds new requests back while weights are exchanged, and knows when those that run are done."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from steerward.protocol.errors import DeadlineExceeded


class Pause:
    """Whether requests are held. Used on one event loop only.

    A request holds nothing while it waits but its connection. Those that ran before are finished.
    """

    def __init__(self) -> None:
        self._may_run = asyncio.Event()
        self._may_run.set()
        # Set unless someone would wait for it: while paused requests still run.
        self._has_settled = asyncio.Event()
        self._has_settled.set()
        self._num_running = 0
        self._num_held = 0

    @property
    def is_on(self) -> bool:
        """Whether new requests are held."""
        return not self._may_run.is_set()

    @property
    def num_running(self) -> int:
        """Requests that score or generate now."""
        return self._num_running

    @property
    def num_held(self) -> int:
        """Requests that wait for the end of the pause."""
        return self._num_held

    def begin(self) -> None:
        """Hold requests from now on."""
        self._may_run.clear()
        self._settle()

    def end(self) -> None:
        """Let all requests go on."""
        self._may_run.set()
        self._settle()

    async def wait_until_idle(self, timeout_s: float) -> None:
        """Return when nothing runs, or the pause is over.

        Raises:
            DeadlineExceeded: If requests still run then; the pause goes on.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._has_settled.wait()
        except TimeoutError:
            raise DeadlineExceeded(
                f"{self._num_running} requests still run after {timeout_s:g} s; the server stays "
                "paused, ask again with POST /pause or let requests go on with POST /resume"
            ) from None

    async def enter(self, timeout_s: float) -> float:
        """Return when a request may run, and the seconds that it was held; then `leave` is due.

        Args:
            timeout_s: That the request has.

        Raises:
            DeadlineExceeded: If it was held for all of that.
        """
        held_s = await self._held(timeout_s) if self.is_on else 0.0
        self._num_running += 1
        return held_s

    def leave(self) -> None:
        """Tell that a request that entered has ended."""
        self._num_running -= 1
        self._settle()

    @asynccontextmanager
    async def running(self, timeout_s: float) -> AsyncIterator[float]:
        """Run a request inside; gives the seconds that are left of its time.

        Raises:
            DeadlineExceeded: If it was held for all of that.
        """
        held_s = await self.enter(timeout_s)
        try:
            yield max(timeout_s - held_s, 0.001)
        finally:
            self.leave()

    async def _held(self, timeout_s: float) -> float:
        began_at = time.perf_counter()
        self._num_held += 1
        try:
            async with asyncio.timeout(timeout_s):
                # The next pause may begin before this one's waiters are woken.
                while self.is_on:
                    await self._may_run.wait()
        except TimeoutError:
            raise DeadlineExceeded(
                f"the server was paused for all of the request's {timeout_s:g} s; allow more time "
                "(timeout_s, --request-timeout-s), or let requests go on with POST /resume"
            ) from None
        finally:
            self._num_held -= 1
        return time.perf_counter() - began_at

    def _settle(self) -> None:
        if self.is_on and self._num_running:
            self._has_settled.clear()
        else:
            self._has_settled.set()
