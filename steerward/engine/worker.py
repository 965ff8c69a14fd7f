"""The one thread that owns the device.

It takes chunks from the queue, runs them, and answers every future it took: with a result, or
with a typed error. If the device cannot go on, it says so, answers all that wait, and ends.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from steerward.engine.batcher import take_batch
from steerward.engine.items import Chunk
from steerward.engine.observation import Observer
from steerward.engine.result import BatchResult, answer, deliver
from steerward.engine.runner import Prepared, Runner
from steerward.models.output import RewardOutput
from steerward.protocol.errors import EngineFailure, NotReady

logger = logging.getLogger(__name__)


class Worker:
    """Runs a model on its own thread.

    Args:
        runner: Of the model; used by this thread only, once started.
        max_batch_tokens: Budget of one forward pass.
        observer: Told what each batch was.
        on_ready: Called on this thread when the first probe has run.
        on_failure: Called on this thread, once, with the reason if the device cannot go on.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        max_batch_tokens: int,
        observer: Observer,
        on_ready: Callable[[], None],
        on_failure: Callable[[str], None],
    ) -> None:
        self._runner = runner
        self._max_batch_tokens = max_batch_tokens
        self._observer = observer
        self._on_ready = on_ready
        self._on_failure = on_failure
        self._queue: deque[Chunk] = deque()
        self._changed = threading.Condition()
        self._end_reason: str | None = None
        self._queued_tokens = 0
        self._tokens_per_s = 0.0
        self._thread = threading.Thread(target=self._run, name="steerward-device", daemon=True)

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait, those of cancelled items included until they are skipped."""
        return self._queued_tokens

    @property
    def tokens_per_s(self) -> float:
        """Recent throughput; 0 before the first batch."""
        return self._tokens_per_s

    def start(self) -> None:
        """Start the thread; it warms up before it takes anything."""
        self._thread.start()

    def submit(self, chunks: Sequence[Chunk]) -> None:
        """Queue the chunks of an item.

        Raises:
            NotReady: If the worker has ended or is ending.
        """
        with self._changed:
            if self._end_reason is not None:
                raise NotReady(self._end_reason, retry_after_s=5.0)
            self._queue.extend(chunks)
            self._queued_tokens += sum(chunk.num_tokens for chunk in chunks)
            self._changed.notify()

    def close(self, *, timeout_s: float) -> None:
        """Answer what still waits with `NotReady`, and end the thread after its batch."""
        self._end("the server is shutting down")
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        if not self._probe():
            self._reject([])
            return
        self._on_ready()
        prepared = self._prepare(wait=True)
        while prepared is not None:
            current, prepared = prepared, None
            started_at = time.perf_counter()
            try:
                output = self._runner.run(current)
                if self._runner.overlaps:
                    # While the device works, what came in meanwhile is laid out for the next pass.
                    prepared = self._prepare(wait=False)
                self._finish(current, self._runner.read(current, output), started_at)
            # Whatever the device raises must reach those who wait for it.
            except Exception as error:
                self._fail(current.chunks, error)
                if not self._probe():
                    break
                if prepared is not None:
                    # It may count on prompts that the failed pass was to compute.
                    prepared = self._plan(prepared.chunks)
            if prepared is None:
                prepared = self._prepare(wait=True)
        self._reject(prepared.chunks if prepared else [])

    def _prepare(self, *, wait: bool) -> Prepared | None:
        """Return the next batch; None if nothing waits, or when the worker is ending."""
        while chunks := self._take(wait=wait):
            if prepared := self._plan(chunks):
                return prepared
        return None

    def _plan(self, chunks: list[Chunk]) -> Prepared | None:
        """Return the pass of chunks; None if that failed, and they have been told so."""
        try:
            return self._runner.prepare(self._runner.plan(), chunks)
        # Taken from the queue, so they must be answered whatever happened.
        except Exception as error:
            self._fail(chunks, error)
            return None

    def _take(self, *, wait: bool) -> list[Chunk]:
        with self._changed:
            while True:
                if self._end_reason is not None:
                    return []
                chunks, left_tokens = take_batch(self._queue, max_tokens=self._max_batch_tokens)
                self._queued_tokens -= left_tokens
                if chunks or not wait:
                    return chunks
                self._changed.wait()

    def _finish(self, prepared: Prepared, output: RewardOutput, started_at: float) -> None:
        finished_at = time.perf_counter()
        speed = prepared.num_tokens / (finished_at - started_at)
        self._tokens_per_s += (0.2 if self._tokens_per_s else 1.0) * (speed - self._tokens_per_s)
        broken = frozenset(output.non_finite_candidates())
        result = BatchResult(
            output, broken, self._runner.gates_are_per_prompt, started_at, finished_at
        )
        self._observer.record_batch(prepared, result)
        for chunk, placement in zip(prepared.chunks, prepared.placements, strict=True):
            deliver(chunk, placement, result)

    def _fail(self, chunks: Sequence[Chunk], error: Exception) -> None:
        logger.error("a batch failed: %s", type(error).__name__, exc_info=error)
        failure = EngineFailure(
            f"scoring failed on the device ({type(error).__name__}); the server's log has the cause"
        )
        for chunk in chunks:
            answer(chunk.item, failure)

    def _probe(self) -> bool:
        """Run a tiny batch through everything; on failure the worker ends."""
        try:
            self._runner.probe()
        # A device in any state must not take the thread down without a word.
        except Exception as error:
            logger.critical("the device cannot go on: %s", type(error).__name__, exc_info=error)
            reason = f"the device worker has stopped ({type(error).__name__}); restart the server"
            self._end(reason)
            self._on_failure(reason)
            return False
        return True

    def _end(self, reason: str) -> None:
        with self._changed:
            self._end_reason = self._end_reason or reason
            self._changed.notify()

    def _reject(self, taken: Sequence[Chunk]) -> None:
        """Answer everything that will not run any more."""
        with self._changed:
            waiting = [*taken, *self._queue]
            self._queue.clear()
            self._queued_tokens = 0
        for chunk in waiting:
            answer(chunk.item, NotReady(self._end_reason or "stopped", retry_after_s=5.0))
