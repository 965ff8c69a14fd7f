"""The queue between the event loop and the device thread."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from steerward.engine.batcher import FairQueue, Tally
from steerward.engine.items import Chunk, Submission
from steerward.protocol.errors import NotReady

# Full passes that the speed is an average of, roughly.
_RECENT_PASSES = 16
# The device counts as this much slower than it was: hiccups, answers on their way.
_CAUTION = 0.9


@dataclass(frozen=True, slots=True)
class Backlog:
    """What the device has still to do, in expected tokens."""

    running: int
    """Taken from the queue and not done."""
    due: list[tuple[float, int]]
    """Deadlines, rounded down a little, with the tokens due then; earliest first."""
    tokens_per_s: float
    """A careful estimate of the speed; 0 before the first pass."""

    @property
    def num_tokens(self) -> int:
        """Tokens that wait or run."""
        return self.running + sum(tokens for _, tokens in self.due)


class ChunkQueue:
    """A `FairQueue` that many threads put into and the device thread takes from.

    Args:
        max_tokens: Budget of a forward pass.
    """

    def __init__(self, *, max_tokens: int) -> None:
        self._queue = FairQueue(max_tokens=max_tokens)
        self._changed = threading.Condition()
        # Expected tokens of what was taken, by the identity of its list.
        self._running: dict[int, int] = {}
        self._speed = Speed(max_tokens=max_tokens)
        self._busy_since = 0.0
        self._end_reason: str | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens that wait."""
        return self._queue.num_tokens

    @property
    def end_reason(self) -> str:
        """Why nothing is taken any more, where that is so."""
        return self._end_reason or ""

    def backlog(self) -> Backlog:
        """Return what waits and what runs, at one moment."""
        with self._changed:
            running = sum(self._running.values())
            return Backlog(running, self._queue.due(), self._speed.tokens_per_s)

    def submit(self, submission: Submission) -> None:
        """Queue the chunks of a request.

        Raises:
            NotReady: If the queue is closed.
        """
        with self._changed:
            if self._end_reason is not None:
                raise NotReady(self._end_reason, retry_after_s=5.0)
            self._queue.add(submission)
            self._changed.notify()

    def drop_cancelled(self, submission: Submission) -> None:
        """Remove what a submission still has of cancelled items; it may have left the queue."""
        with self._changed:
            self._queue.drop_cancelled(submission)

    def take(self, new_tally: Callable[[], Tally], *, wait: bool) -> list[Chunk]:
        """Return the chunks of the next pass; none if nothing waits or the queue is closed.

        They run until they are given to `finish`.
        """
        with self._changed:
            while self._end_reason is None:
                chunks = self._queue.take(new_tally())
                if chunks:
                    if not self._running:
                        self._busy_since = time.perf_counter()
                    self._running[id(chunks)] = sum(chunk.num_tokens for chunk in chunks)
                if chunks or not wait:
                    return chunks
                self._changed.wait()
            return []

    def finish(self, chunks: list[Chunk], *, has_failed: bool = False) -> None:
        """Count chunks, in the list that was taken, as done; a second time does nothing.

        Passes follow each other, so one took the time since the last was done, or since it was
        taken if nothing ran then: preparing and delivering are part of the speed.
        """
        now = time.perf_counter()
        with self._changed:
            tokens = self._running.pop(id(chunks), 0)
            if tokens and not has_failed:
                self._speed.record(tokens, now - self._busy_since)
                self._busy_since = now

    def close(self, reason: str) -> None:
        """Refuse and give nothing more; the first reason stays."""
        with self._changed:
            self._end_reason = self._end_reason or reason
            self._changed.notify()

    def clear(self) -> list[Chunk]:
        """Remove and return everything that waits."""
        with self._changed:
            return self._queue.clear()


class Speed:
    """Recent tokens per second, as a careful estimate for full passes.

    Averages of tokens^2 and of tokens * seconds, both forgotten with the tokens that go by: the
    slope of seconds over tokens by least squares. A pass counts by its size, so that many small
    ones, whose time is mostly overhead, say little.

    Args:
        max_tokens: Of one pass.
    """

    def __init__(self, *, max_tokens: int) -> None:
        self._memory_tokens = _RECENT_PASSES * max_tokens
        self._squares = 0.0
        self._products = 0.0

    def record(self, tokens: int, seconds: float) -> None:
        """Add a pass."""
        keep = math.exp(-tokens / self._memory_tokens)
        self._squares = keep * self._squares + tokens * tokens
        self._products = keep * self._products + tokens * seconds

    @property
    def tokens_per_s(self) -> float:
        """The estimate; 0 before the first pass."""
        return _CAUTION * self._squares / self._products if self._products else 0.0
