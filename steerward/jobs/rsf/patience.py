"""Tries again while a policy or a reward model is busy or away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from steerward.protocol.errors import EngineFailure, NonFiniteScore, NotReady, SteerwardError

ResultT = TypeVar("ResultT")

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 10.0
# A step of a device that fails takes all with it that it held; the next may well succeed.
_MOST_FAILURES = 3


class Patience:
    """Repeats calls whose errors pass by themselves, until nothing has worked for too long.

    Args:
        limit_s: Seconds since the last call that worked, of any that share this.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._worked_at = time.monotonic()

    def begin(self) -> None:
        """Count from now: before this, nothing was asked."""
        self._worked_at = time.monotonic()

    async def call(self, make: Callable[[], Awaitable[ResultT]]) -> ResultT:
        """Return the result of a call, repeated while its error is one that passes.

        Raises:
            NotReady: If nothing has worked for too long; the last error is told.
            SteerwardError: Any that does not pass.
        """
        wait_s, failures = _FIRST_WAIT_S, 0
        while True:
            try:
                result = await make()
            except SteerwardError as error:
                failures += isinstance(error, EngineFailure)
                if not _passes(error, failures):
                    raise
                away_s = time.monotonic() - self._worked_at
                if away_s > self._limit_s:
                    raise NotReady(
                        f"nothing was generated or scored for {away_s:.0f} s: {error.message}"
                    ) from error
                pause_s = max(wait_s, min(error.retry_after_s or 0, _LONGEST_WAIT_S))
                # A last try at the limit, not long after it.
                await asyncio.sleep(min(pause_s, self._limit_s - away_s + _FIRST_WAIT_S))
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            else:
                self._worked_at = time.monotonic()
                return result


def _passes(error: SteerwardError, failures: int) -> bool:
    """Return whether an error may pass by itself, after so many failures of the device."""
    if isinstance(error, EngineFailure) and not isinstance(error, NonFiniteScore):
        return failures < _MOST_FAILURES
    return error.is_retryable
