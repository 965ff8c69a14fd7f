"""The one thread that owns the device.

It takes chunks from the queue, runs them, and answers every future it took: with a result, or
with a typed error. If the device cannot go on, it says so, answers all that wait, and ends.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from steerward.engine.batcher import PrefixTally
from steerward.engine.items import Chunk, Submission
from steerward.engine.observation import Observer
from steerward.engine.queue import Backlog, ChunkQueue
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
        self._observer = observer
        self._on_ready = on_ready
        self._on_failure = on_failure
        self._queue = ChunkQueue(max_tokens=max_batch_tokens)
        self._thread: threading.Thread | None = None

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait."""
        return self._queue.num_tokens

    def backlog(self) -> Backlog:
        """Return what waits and runs, and how fast that goes."""
        return self._queue.backlog()

    def start(self) -> None:
        """Start the thread; it warms up before it takes anything."""
        self._thread = threading.Thread(target=self._run, name="steerward-device", daemon=True)
        self._thread.start()

    def submit(self, submission: Submission) -> None:
        """Queue the chunks of a request.

        Raises:
            NotReady: If the worker has ended or is ending.
        """
        self._queue.submit(submission)

    def drop_cancelled(self, submission: Submission) -> None:
        """Remove what a submission still has of cancelled items."""
        self._queue.drop_cancelled(submission)

    def close(self, *, timeout_s: float) -> None:
        """Answer what still waits with `NotReady`, and end the thread after its batch."""
        self._queue.close("the server is shutting down")
        if self._thread is not None:
            self._thread.join(timeout_s)
        if self._thread is None or not self._thread.is_alive():
            # They are methods of whoever owns this; without the cycle, weights that nobody uses
            # any more are freed at once, also where the collector does not look.
            self._on_ready = self._on_failure = _ignore

    def _run(self) -> None:
        if not self._probe():
            self._reject([])
            return
        self._on_ready()
        prepared = self._prepare(wait=True)
        while prepared is not None:
            prepared, is_well = self._pass(prepared)
            if not is_well:
                break
            # Nothing of a pass is held while the next is waited for.
            prepared = prepared or self._prepare(wait=True)
        self._reject(prepared.chunks if prepared else [])

    def _pass(self, current: Prepared) -> tuple[Prepared | None, bool]:
        """Run a pass and answer its chunks.

        Returns:
            The next pass if it is laid out already, and whether the device can go on.
        """
        following: Prepared | None = None
        started_at = time.perf_counter()
        try:
            output = self._runner.run(current)
            if self._runner.overlaps:
                # While the device works, what came in meanwhile is laid out for the next pass.
                following = self._prepare(wait=False)
            self._finish(current, self._runner.read(current, output), started_at)
        # Whatever the device raises must reach those who wait for it.
        except Exception as error:
            self._fail(current.chunks, error)
            if not self._probe():
                return following, False
            if following is not None:
                # It may count on prompts that the failed pass was to compute.
                following = self._plan(following.chunks)
        return following, True

    def _prepare(self, *, wait: bool) -> Prepared | None:
        """Return the next batch; None if nothing waits, or when the worker is ending."""
        while chunks := self._queue.take(self._new_tally, wait=wait):
            if prepared := self._plan(chunks):
                return prepared
        return None

    def _new_tally(self) -> PrefixTally:
        return PrefixTally(self._cost)

    def _cost(self, chunk: Chunk) -> int | None:
        """Return the tokens that a pass of one chunk computes; None if it has failed at that."""
        try:
            return self._runner.cost(chunk.group)
        # Whoever waits for this chunk must hear of it; all others must not.
        except Exception as error:
            self._fail([chunk], error)
            return None

    def _plan(self, chunks: list[Chunk]) -> Prepared | None:
        """Return the pass of chunks; None if that failed, and they have been told so."""
        try:
            return self._runner.prepare(chunks)
        # Taken from the queue, so they must be answered whatever happened.
        except Exception as error:
            # Half a plan must not be taken for what a pass will have computed.
            self._runner.forget()
            self._fail(chunks, error)
            return None

    def _finish(self, prepared: Prepared, output: RewardOutput, started_at: float) -> None:
        finished_at = time.perf_counter()
        self._queue.finish(prepared.chunks)
        broken = frozenset(output.non_finite_candidates())
        result = BatchResult(
            output, broken, self._runner.gates_are_per_prompt, started_at, finished_at
        )
        self._observer.record_batch(prepared, result)
        for chunk, placement in zip(prepared.chunks, prepared.placements, strict=True):
            deliver(chunk, placement, result)
        # Counting takes longer than all the rest here, and those who wait need not wait for it.
        self._observer.settle()

    def _fail(self, chunks: list[Chunk], error: Exception) -> None:
        logger.error("a batch failed: %s", type(error).__name__, exc_info=error)
        failure = EngineFailure(
            f"scoring failed on the device ({type(error).__name__}); the server's log has the cause"
        )
        self._queue.finish(chunks, has_failed=True)
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
            self._queue.close(reason)
            self._on_failure(reason)
            return False
        return True

    def _reject(self, taken: list[Chunk]) -> None:
        """Answer everything that will not run any more."""
        self._queue.finish(taken, has_failed=True)
        for chunk in [*taken, *self._queue.clear()]:
            answer(chunk.item, NotReady(self._queue.end_reason, retry_after_s=5.0))


def _ignore(*_: str) -> None:
    """Nobody is left to be told."""
