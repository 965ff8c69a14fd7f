"""A request on the event loop's side of the device thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from steerward.policy.generation import Piece
from steerward.protocol.errors import DeadlineExceeded, SteerwardError


class LocalGeneration:
    """Completions that the device thread draws, as they come.

    What a reader has not taken waits here: at most the request's own tokens, so that a slow
    reader holds up nobody.

    Args:
        num_samples: Of the request.
        prompt_tokens: Of its distinct prompts.
        weight_version: Of the weights that draw it.
        system_fingerprint: Of all that may change what a seed gives.
        deadline: `time.perf_counter()` at which it is given up.
        timeout_s: What that was in seconds, for the error.
        cancel: Frees what the device thread holds for it.
    """

    def __init__(
        self,
        *,
        num_samples: int,
        prompt_tokens: int,
        weight_version: str,
        system_fingerprint: str,
        deadline: float,
        timeout_s: float,
        cancel: Callable[[], None],
    ) -> None:
        self.weight_version = weight_version
        self.system_fingerprint = system_fingerprint
        self._prompt_tokens = prompt_tokens
        # Samples that the reader, and the device thread, are not done with.
        self._left = num_samples
        self._undelivered = num_samples
        self._deadline = deadline
        self._timeout_s = timeout_s
        self._cancel = cancel
        self._arrived: asyncio.Queue[Piece | SteerwardError | None] = asyncio.Queue()
        self._is_over = False

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the distinct prompts."""
        return self._prompt_tokens

    @property
    def is_complete(self) -> bool:
        """Whether the device thread has no more to give."""
        return self._undelivered == 0

    def put(self, result: Piece | SteerwardError) -> None:
        """Take what the device thread gave; called on the event loop."""
        if isinstance(result, SteerwardError):
            self._undelivered = 0
        elif result.finish_reason is not None:
            self._undelivered -= 1
        self._arrived.put_nowait(result)

    async def __aiter__(self) -> AsyncIterator[Piece]:
        """Yield pieces until all samples are done.

        Raises:
            SteerwardError: Why there are no more.
        """
        try:
            while self._left and (piece := await self._next()) is not None:
                self._left -= piece.finish_reason is not None
                yield piece
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Give up what is not done."""
        if not self._is_over:
            self._is_over = True
            # Somebody else may be reading.
            self._arrived.put_nowait(None)
            cancel, self._cancel = self._cancel, _nothing
            if self._left:
                cancel()

    async def _next(self) -> Piece | None:
        """Return the next piece, or None if the generation was closed."""
        try:
            async with asyncio.timeout(max(0.0, self._deadline - time.perf_counter())):
                result = await self._arrived.get()
        except TimeoutError:
            raise DeadlineExceeded(
                f"the completions were not done after {self._timeout_s:.3g} s; ask for fewer "
                "tokens or samples, or allow more time (timeout_s)"
            ) from None
        if isinstance(result, SteerwardError):
            self._left = 0  # The device thread has freed it already.
            raise result
        return result


def _nothing() -> None:
    """Stand in for what is done: what that held is let go of, weights above all."""
