"""The thread that owns the device: takes requests, draws tokens, hands over what came of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from steerward.policy.generation import Piece
from steerward.policy.local.decoder import Decoder
from steerward.policy.local.sequence import Job, SharedPrompt
from steerward.protocol.errors import EngineFailure, NotReady, SteerwardError

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")
Delivery = list[tuple[Job, Piece | SteerwardError]]


@dataclass(frozen=True, slots=True)
class Load:
    """How many completions are drawn, and wait, at one moment."""

    running: int = 0
    waiting: int = 0


class Worker:
    """Runs the decoder while there is something to draw.

    Args:
        decoder: Used by this thread only.
        deliver: Takes what each step gave; called in this thread.
        begin: Called in this thread before anything else.
        warm_up: Draws some tokens; called in this thread before anyone asks for some, and after
            a step that failed.
        on_ready: Called when it has done so.
        on_failure: Called with the reason if it failed, and when the thread ends for one.
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        deliver: Callable[[Delivery], None],
        begin: Callable[[], None],
        warm_up: Callable[[], None],
        on_ready: Callable[[], None],
        on_failure: Callable[[str], None],
    ) -> None:
        self._decoder = decoder
        self._deliver = deliver
        self._begin = begin
        self._warm_up = warm_up
        self._on_ready = on_ready
        self._on_failure = on_failure
        self._changed = threading.Condition()
        self._arriving: list[list[SharedPrompt]] = []
        self._num_arriving = 0
        self._cancelled: set[Job] = set()
        self._calls: list[Callable[[], None]] = []
        self._due_calls: list[Callable[[], None]] = []
        self._end_reason: str | None = None
        self._load = Load()
        self._thread = threading.Thread(target=self._run, name="policy", daemon=True)

    @property
    def load(self) -> Load:
        """What is drawn and what waits, as of the last step."""
        load = self._load
        return Load(load.running, load.waiting + self._num_arriving)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, prompts: list[SharedPrompt]) -> None:
        """Let a request wait for its turn.

        Raises:
            NotReady: If the thread has ended.
        """
        with self._changed:
            if self._end_reason is not None:
                raise NotReady(self._end_reason, retry_after_s=5.0)
            self._arriving.append(prompts)
            self._num_arriving += sum(len(prompt.waiting) for prompt in prompts)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Free what a request holds before the next step."""
        with self._changed:
            self._cancelled.add(job)
            self._changed.notify()

    def run(self, function: Callable[[], ResultT]) -> ResultT:
        """Return what a function gives in the device thread, between two steps.

        Before the thread is started it runs at once.

        Raises:
            NotReady: If the thread has ended.
        """
        if self._thread.ident is None:
            return function()
        result: Future[ResultT] = Future()

        def call() -> None:
            try:
                result.set_result(function())
            # It belongs to the caller, whatever it is.
            except Exception as error:
                result.set_exception(error)

        with self._changed:
            if self._end_reason is not None:
                raise NotReady(self._end_reason, retry_after_s=5.0)
            self._calls.append(call)
            self._changed.notify()
        return result.result()

    def post(self, function: Callable[[], None]) -> None:
        """Let a function be called in the device thread, between two steps; nobody waits for it.

        What was cancelled before is freed before it is called.
        """

        def call() -> None:
            try:
                function()
            # Nobody waits for it, and it must not end the thread.
            except Exception as error:
                logger.error("a call between two steps failed", exc_info=error)

        with self._changed:
            if self._end_reason is None:
                self._calls.append(call)
                self._changed.notify()

    def close(self, reason: str, *, timeout_s: float) -> None:
        """End all requests with `NotReady` and the thread."""
        with self._changed:
            self._end_reason = self._end_reason or reason
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        self._begin()
        if (reason := self._why_not_well()) is not None:
            self._end(f"the policy did not warm up: {reason}")
            return
        self._on_ready()
        # What a step looked at is let go of before the thread waits: weights may be among it.
        while self._take():
            self._make_calls()
            if not self._step() and (reason := self._why_not_well()) is not None:
                self._end(f"the policy's device has failed: {reason}")
                return
        self._end(self._end_reason or "the policy has stopped")

    def _step(self) -> bool:
        """Draw one more token of each completion and deliver them; False if that failed."""
        has_failed = False
        jobs = self._decoder.jobs
        delivery: Delivery
        try:
            delivery = self._decoder.advance()
        # A step that fails takes its requests with it, and none that come later.
        except Exception as error:
            has_failed = True
            logger.error("a decoding step failed", exc_info=error)
            # All that were there: one may have ended in the step whose results are lost.
            self._decoder.drop(jobs)
            failure = f"a decoding step failed: {type(error).__name__}"
            delivery = [(job, _failed(failure)) for job in jobs]
        self._load = Load(self._decoder.num_running, self._decoder.num_waiting)
        if delivery:
            self._deliver(delivery)
        return not has_failed

    def _why_not_well(self) -> str | None:
        """Draw a few tokens that nobody asked for; return why that fails, where it does."""
        try:
            self._warm_up()
        # Whatever it is, nothing can be drawn; the reason is told to everyone who asks.
        except Exception as error:
            logger.error("the policy draws nothing", exc_info=error)
            return f"{type(error).__name__}: {error}"
        return None

    def _take(self) -> bool:
        """Take on what has arrived, wait while there is nothing to do; False at the end."""
        with self._changed:
            while True:
                if self._end_reason is not None:
                    return False
                for prompts in self._arriving:
                    self._decoder.add(prompts)
                self._arriving.clear()
                self._num_arriving = 0
                if self._cancelled:
                    self._decoder.drop(self._cancelled)
                    self._cancelled.clear()
                self._load = Load(self._decoder.num_running, self._decoder.num_waiting)
                if self._calls or self._load.running or self._load.waiting:
                    # With what was cancelled: a call may free what only those needed.
                    self._due_calls, self._calls = self._calls, []
                    return True
                self._changed.wait()

    def _make_calls(self) -> None:
        """Run what others want to have run here; without the lock, for it may take long."""
        while self._due_calls:
            self._due_calls.pop(0)()

    def _end(self, reason: str) -> None:
        with self._changed:
            self._end_reason = reason
            for prompts in self._arriving:
                self._decoder.add(prompts)
            self._arriving.clear()
            self._due_calls, self._calls = self._calls, []
        self._make_calls()
        jobs = self._decoder.jobs
        self._decoder.drop(jobs)
        self._deliver([(job, NotReady(reason, retry_after_s=5.0)) for job in jobs])
        self._load = Load()
        self._on_failure(reason)


def _failed(message: str) -> EngineFailure:
    return EngineFailure(f"{message}; the server's log has the cause")
