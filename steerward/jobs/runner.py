"""Runs the jobs of a server: takes them by lease, reports what they do, ends them clearly."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeVar

from steerward.jobs.ending import can_go_on, explained
from steerward.jobs.leases import LeaseLost
from steerward.jobs.recorder import Recorder
from steerward.jobs.records import JobRecord
from steerward.jobs.rsf.observer import Observer
from steerward.jobs.states import PendingRequest
from steerward.jobs.store import JobStore
from steerward.protocol.errors import NotReady, SteerwardError, StorageFull
from steerward.protocol.fine_tuning import JobError

logger = logging.getLogger(__name__)

ResultT = TypeVar("ResultT")

_POLL_S = 2.0
# The lease is extended after a quarter of it; people who ask for something wait no longer than so.
_LONGEST_BEAT_S = 1.0
_Ending = Literal["pause", "cancel", "drain", "lost"]
_SETTLED: dict[PendingRequest, str] = {
    "none": "the job waits for a server to go on with it",
    "pause": "the job is paused",
    "cancel": "the job is cancelled",
}


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """What a job that succeeded leaves."""

    fine_tuned_model: str
    result_files: Sequence[str]
    trained_tokens: int


Work = Callable[[JobRecord, Observer], Awaitable[JobOutcome]]


class JobRunner:
    """Runs one job at a time.

    Args:
        store: Of the jobs.
        owner: Name of this server, different from all others.
        models: Gives the policies of this server, whose jobs it can run.
        work: Does a job.
        lease_s: Seconds after which another server takes over, if this one falls silent.
        on_end: Called on the event loop when a job has ended here, in whatever way.
    """

    def __init__(
        self,
        store: JobStore,
        *,
        owner: str,
        models: Callable[[], Sequence[str]],
        work: Work,
        lease_s: float,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._owner = owner
        self._models = models
        self._work = work
        self._lease_s = lease_s
        self._on_end = on_end
        self._woken = asyncio.Event()
        self._is_draining = False
        self._running: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begin to take jobs."""
        self._loop = asyncio.get_running_loop()
        self._running = asyncio.create_task(self._run())

    def wake(self) -> None:
        """Look for jobs, and for what is asked of the one at hand, at once; from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._woken.set)

    async def close(self) -> None:
        """Stop; the job at hand is queued again, and goes on where it is."""
        self._is_draining = True
        self.wake()
        if self._running is not None:
            await self._running

    async def _run(self) -> None:
        while not self._is_draining:
            try:
                asked_at = time.monotonic()
                record = await asyncio.to_thread(
                    self._store.acquire,
                    self._owner,
                    models=self._models(),
                    lease_s=self._lease_s,
                )
                if record is not None:
                    await self._run_job(record, until=asked_at + self._lease_s)
                    self._on_end()
                    continue
            # A database that is away must not end the server's jobs for good.
            except Exception as error:
                logger.error("the jobs' database does not answer", exc_info=error)
            await self._wait(_POLL_S)

    async def _wait(self, seconds: float) -> None:
        # Not wait_for, which may lose a cancellation.
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()

    async def _run_job(self, record: JobRecord, *, until: float) -> None:
        logger.info("job %s begins or goes on", record.id)
        async with Recorder(self._store, record, self._owner) as recorder:
            working = asyncio.ensure_future(self._work(record, recorder))
            try:
                ending = await self._hold(record.id, working, until)
            finally:
                # Whatever happened here: without a lease nothing works on.
                await _stopped(working)
            if ending == "lost":
                recorder.abandon()
        if ending == "lost":
            logger.warning("job %s is not this server's any more, or may not be", record.id)
            return
        with suppress(LeaseLost):
            await self._end(record.id, working, ending)

    async def _hold(
        self, job: str, working: asyncio.Future[JobOutcome], until: float
    ) -> _Ending | None:
        """Hold the lease until the job has stopped; return why it was to stop, if it was.

        Args:
            job: Its id.
            working: What runs; stopped when that is asked for.
            until: When the lease ends, by the monotonic clock.
        """
        ending: _Ending | None = None
        while not working.done():
            began_at = time.monotonic()
            asked = await self._beat(job, until)
            if asked == "lost":
                return "lost"
            if asked != "away":
                until = began_at + self._lease_s
            ending = ending or self._wanted(asked)
            if ending is not None:
                # Again and again: some library may lose one.
                working.cancel()
            waking = asyncio.ensure_future(self._wait(min(self._lease_s / 4, _LONGEST_BEAT_S)))
            await asyncio.wait([working, waking], return_when=asyncio.FIRST_COMPLETED)
            await _stopped(waking)
        return ending

    def _wanted(self, asked: PendingRequest | Literal["away"]) -> _Ending | None:
        if asked == "pause" or asked == "cancel":
            return asked
        return "drain" if self._is_draining else None

    async def _beat(self, job: str, until: float) -> PendingRequest | Literal["lost", "away"]:
        """Extend the lease, and return what is asked of the job.

        A database that is away may come back: until the lease ends nobody else takes the job.
        """
        beating = asyncio.ensure_future(
            asyncio.to_thread(self._store.heartbeat, job, self._owner, lease_s=self._lease_s)
        )
        # A call that hangs is left behind, and nobody asks how it ended.
        beating.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait([beating], timeout=max(0.0, until - time.monotonic()))
        if not beating.done():
            return "lost"
        error = beating.exception()
        if error is None:
            return beating.result()
        if isinstance(error, LeaseLost):
            return "lost"
        logger.warning("the lease of job %s was not extended: %s", job, error)
        return "lost" if time.monotonic() >= until else "away"

    async def _end(
        self, job: str, working: asyncio.Future[JobOutcome], ending: _Ending | None
    ) -> None:
        error = None if working.cancelled() else working.exception()
        if working.cancelled() or (error is not None and self._is_settled(error, ending)):
            await self._settle(job)
        elif error is not None:
            await self._fail(job, error)
        else:
            await self._succeed(job, working.result())

    def _is_settled(self, error: BaseException, ending: _Ending | None) -> bool:
        """Return whether what was asked of a job matters more than an error that it met."""
        return ending == "cancel" or (ending is not None and can_go_on(explained(error)))

    async def _settle(self, job: str) -> None:
        """Let the job be what it is asked to be by now: paused, cancelled, or queued again."""
        asked: PendingRequest = await self._write(lambda: self._asked(job))
        await self._tell(job, _SETTLED[asked])
        await self._write(lambda: self._store.release(job, self._owner))

    # The event comes before the status: whoever sees that the job has ended has all its events.

    async def _succeed(self, job: str, outcome: JobOutcome) -> None:
        await self._tell(job, f"the job has succeeded: {outcome.fine_tuned_model} is served")
        await self._write(
            lambda: self._store.finish(
                job,
                self._owner,
                status="succeeded",
                fine_tuned_model=outcome.fine_tuned_model,
                result_files=outcome.result_files,
                trained_tokens=outcome.trained_tokens,
            )
        )

    async def _fail(self, job: str, error: BaseException) -> None:
        """End the job, or pause it where it can go on once its reason is gone."""
        told = explained(error)
        if told is not error:
            logger.error("job %s met an error", job, exc_info=error)
        status = "paused" if can_go_on(told) else "failed"
        # Asked for since the work ended: it would be lost with the change of status.
        if status == "paused" and await self._write(lambda: self._asked(job)) != "none":
            await self._settle(job)
            return
        way_out = "; resume it when that is mended" if status == "paused" else ""
        await self._tell(job, f"the job is {status}: {told.message}{way_out}", is_error=True)
        detail = JobError(code=told.code, message=told.message, param=told.param)
        await self._write(lambda: self._store.finish(job, self._owner, status=status, error=detail))

    def _asked(self, job: str) -> PendingRequest:
        return self._store.heartbeat(job, self._owner, lease_s=self._lease_s)

    async def _write(self, write: Callable[[], ResultT]) -> ResultT:
        """Return what the database says, when it can: it may be away as long as the lease lasts."""
        until = time.monotonic() + self._lease_s
        while True:
            try:
                return await asyncio.to_thread(write)
            except (NotReady, StorageFull):
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(min(self._lease_s / 4, _LONGEST_BEAT_S))

    async def _tell(self, job: str, message: str, *, is_error: bool = False) -> None:
        level = "error" if is_error else "info"
        try:
            await asyncio.to_thread(self._store.add_event, job, message, level=level)
        # The job has ended as it has, told or not.
        except SteerwardError as error:
            logger.error("an event of %s was not written: %s", job, error)


async def _stopped(working: asyncio.Future[ResultT]) -> None:
    """Cancel what still runs, and wait for its end."""
    while not working.done():
        working.cancel()
        await asyncio.wait([working], timeout=_LONGEST_BEAT_S)
