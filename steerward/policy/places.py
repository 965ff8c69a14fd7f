"""How many completions one policy draws at once, and who waits: first come, first served."""

from __future__ import annotations

import asyncio
from collections import deque

from steerward.protocol.errors import Overloaded


class Places:
    """Places for completions; those of one request are taken together.

    Used from one event loop.

    Args:
        max_running: Places. A request for more is let in when nothing else runs.
        max_waiting: Completions that may wait.
    """

    def __init__(self, *, max_running: int, max_waiting: int) -> None:
        self.running = 0
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def waiting(self) -> int:
        """Completions that wait."""
        return sum(num for num, _ in self._queue)

    async def take(self, num: int) -> None:
        """Return when there are places; they are to be given back.

        Raises:
            Overloaded: If too many wait already.
        """
        if not self._queue and self._fits(num):
            self.running += num
            return
        if self.waiting + num > self._max_waiting:
            raise Overloaded(
                f"{self.waiting} completions wait already, {num} more are asked for, limit "
                f"{self._max_waiting}; try again later, or ask for less at once",
                retry_after_s=1.0,
            )
        turn = (num, asyncio.get_running_loop().create_future())
        self._queue.append(turn)
        try:
            await turn[1]
        except asyncio.CancelledError:
            if not turn[1].cancelled():
                # Let in and given up at the same moment.
                self.give_back(num)
            elif turn in self._queue:
                self._queue.remove(turn)
                self._let_in()
            raise

    def give_back(self, num: int) -> None:
        """Free places, and let in who waits for them."""
        self.running -= num
        self._let_in()

    def _fits(self, num: int) -> bool:
        return self.running == 0 or self.running + num <= self._max_running

    def _let_in(self) -> None:
        while self._queue and self._fits(self._queue[0][0]):
            num, turn = self._queue.popleft()
            if not turn.done():
                self.running += num
                turn.set_result(None)
