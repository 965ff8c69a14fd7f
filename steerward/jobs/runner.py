"""Runs the jobs of a server: takes them by lease, reports what they do, ends them clearly."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from steerward.jobs.leases import LeaseLost
from steerward.jobs.records import JobRecord
from steerward.jobs.recorder import Recorder
from steerward.jobs.rsf.observer import Observer
from steerward.jobs.store import JobStore
from steerward.protocol.errors import SteerwardError, StorageFull
from steerward.protocol.fine_tuning import JobError

logger = logging.getLogger(__name__)

_POLL_S = 2.0
_Ending = Literal["pause", "cancel", "drain", "lost"]


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
    """

    def __init__(
        self,
        store: JobStore,
        *,
        owner: str,
        models: Callable[[], Sequence[str]],
        work: Work,
        lease_s: float,
    ) -> None:
        self._store = store
        self._owner = owner
        self._models = models
        self._work = work
        self._lease_s = lease_s
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
                record = await asyncio.to_thread(
                    self._store.acquire,
                    self._owner,
                    models=self._models(),
                    lease_s=self._lease_s,
                )
                if record is not None:
                    await self._run_job(record)
                    continue
            # A database that is away must not end the server's jobs for good.
            except Exception as error:
                logger.error("the jobs' database does not answer", exc_info=error)
            await self._wait(_POLL_S)

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), seconds)
        self._woken.clear()

    async def _run_job(self, record: JobRecord) -> None:
        logger.info("job %s begins or goes on", record.id)
        async with Recorder(self._store, record, self._owner) as recorder:
            working = asyncio.ensure_future(self._work(record, recorder))
            ending = await self._until_done(record, working)
            if not working.done():
                working.cancel()
            await asyncio.wait([working])
            await recorder.flush()
        if ending == "lost":
            logger.warning("job %s is run by another server now", record.id)
            return
        with suppress(LeaseLost):
            await self._end(record, working, ending)

    async def _until_done(
        self, record: JobRecord, working: asyncio.Future[JobOutcome]
    ) -> _Ending | None:
        """Hold the lease while the job runs; return why it is to be stopped, if it is."""
        while not working.done():
            try:
                asked = await asyncio.to_thread(
                    self._store.heartbeat, record.id, self._owner, lease_s=self._lease_s
                )
            except LeaseLost:
                return "lost"
            if asked != "none":
                return asked
            if self._is_draining:
                return "drain"
            waking = asyncio.ensure_future(self._wait(min(self._lease_s / 4, 1.0)))
            await asyncio.wait([working, waking], return_when=asyncio.FIRST_COMPLETED)
            if not waking.done():
                waking.cancel()
                await asyncio.wait([waking])
        return None

    async def _end(
        self, record: JobRecord, working: asyncio.Future[JobOutcome], ending: _Ending | None
    ) -> None:
        store, job = self._store, record.id
        if working.cancelled():
            if ending == "drain":
                await asyncio.to_thread(store.release, job, self._owner)
                return
            status = "paused" if ending == "pause" else "cancelled"
            await self._finish(job, status)
            return
        error = working.exception()
        if error is None:
            outcome = working.result()
            await asyncio.to_thread(
                store.finish,
                job,
                self._owner,
                status="succeeded",
                fine_tuned_model=outcome.fine_tuned_model,
                result_files=outcome.result_files,
                trained_tokens=outcome.trained_tokens,
            )
            await self._tell(job, f"the job has succeeded: {outcome.fine_tuned_model} is served")
            return
        told = _explained(error)
        if told.code == "error":
            logger.error("job %s failed", job, exc_info=error)
        can_go_on = told.is_retryable or isinstance(told, StorageFull)
        await self._finish(job, "paused" if can_go_on else "failed", told)

    async def _finish(
        self,
        job: str,
        status: Literal["paused", "failed", "cancelled"],
        error: SteerwardError | None = None,
    ) -> None:
        detail = None
        if error is not None:
            detail = JobError(code=error.code, message=error.message, param=error.param)
        await asyncio.to_thread(self._store.finish, job, self._owner, status=status, error=detail)
        reason = f": {error.message}" if error is not None else ""
        way_out = "; resume it when that is mended" if error and status == "paused" else ""
        await self._tell(job, f"the job is {status}{reason}{way_out}", is_error=error is not None)

    async def _tell(self, job: str, message: str, *, is_error: bool = False) -> None:
        level = "error" if is_error else "info"
        await asyncio.to_thread(self._store.add_event, job, message, level=level)


def _explained(error: BaseException) -> SteerwardError:
    """Return an error as users of jobs understand it."""
    if isinstance(error, SteerwardError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(
            f"the disk is full ({error.strerror}); nothing that was done is lost: make room"
        )
    return SteerwardError(
        f"the job met an error that nobody expected ({type(error).__name__}); the server's log "
        "has the cause"
    )
