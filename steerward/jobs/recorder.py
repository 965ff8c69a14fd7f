"""Writes what a running job tells into the store, in order and without holding the job up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from steerward.jobs.leases import LeaseLost
from steerward.jobs.records import JobRecord
from steerward.jobs.store import JobStore
from steerward.protocol.fine_tuning import EventLevel, EventType, IterationProgress, JobProgress

logger = logging.getLogger(__name__)

# Progress changes many times a second; people look less often.
_LEAST_PAUSE_S = 0.5
# The job's end is told without what a database does not take by then.
_FLUSH_S = 10.0


class Recorder:
    """The observer of a job; an async context manager.

    Args:
        store: Where it writes.
        record: Of the job.
        owner: That holds its lease; when it is lost, nothing more is written.
    """

    def __init__(self, store: JobStore, record: JobRecord, owner: str) -> None:
        self._store = store
        self._record = record
        self._owner = owner
        # One thread keeps the order.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="job-recorder")
        self._latest: JobProgress | None = None
        self._saved_at = 0.0
        self._is_saving = False
        self._is_lost = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not await self.flush():
            logger.error("what %s told last was not written in time", self._record.id)
            # It would come after the job's end, or after what its next server tells.
            self.abandon()
        self._pool.shutdown(wait=False)

    def progress(self, progress: JobProgress) -> None:
        """Take note of where the job is; written twice a second at most."""
        before, self._latest = self._latest, progress
        is_new_step = before is None or before.step != progress.step
        if is_new_step or time.monotonic() - self._saved_at >= _LEAST_PAUSE_S:
            self._saved_at = time.monotonic()
            self._save_soon()

    def event(
        self,
        message: str,
        *,
        level: EventLevel = "info",
        type: EventType = "message",
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Take note of something that happened."""

        def add() -> None:
            self._store.add_event(
                self._record.id,
                message,
                level=level,
                type=type,
                data=None if data is None else dict(data),
            )

        self._write(add)

    def published(self, iteration: IterationProgress, folder: Path, weight_version: str) -> None:
        """Take note that the policy of an iteration is served."""
        metrics: dict[str, float | None] = {
            "train_loss": iteration.loss,
            "kl": iteration.kl,
            "direction_score": iteration.direction_score,
        }
        if self._record.method != "rsf":
            metrics = {**iteration.rewards}

        def add() -> None:
            self._store.add_checkpoint(
                self._record.id,
                folder=str(folder),
                step_number=iteration.iteration,
                metrics=metrics,
                weight_version=weight_version,
            )

        self._write(add)

    async def flush(self) -> bool:
        """Wait until everything is written, and return whether it is: a database may hang."""
        if self._latest is not None:
            self._save_soon()
        written = asyncio.get_running_loop().run_in_executor(self._pool, lambda: None)
        done, _ = await asyncio.wait([written], timeout=_FLUSH_S)
        return bool(done)

    def abandon(self) -> None:
        """Write nothing more, also of what waits: the job is somebody else's."""
        self._is_lost = True

    def _save_soon(self) -> None:
        """Save the latest progress, once, however many ask for it while the database is slow."""
        if not self._is_saving:
            self._is_saving = True
            self._write(self._save)

    def _write(self, function: Callable[..., None], *arguments: Any) -> None:
        def run() -> None:
            if self._is_lost:
                return
            try:
                function(*arguments)
            except LeaseLost:
                # The runner finds out by itself. Whoever has the job now tells of it.
                self._is_lost = True
            # What is told of a job must not end it.
            except Exception as error:
                logger.error("progress of %s was not written", self._record.id, exc_info=error)

        self._pool.submit(run)

    def _save(self) -> None:
        # In this order: what comes after is saved again.
        self._is_saving = False
        progress = self._latest
        assert progress is not None
        self._store.save_progress(
            self._record.id,
            self._owner,
            progress,
            estimated_finish=estimated_finish(progress, now=time.time()),
        )


def estimated_finish(progress: JobProgress, *, now: float) -> int | None:
    """Return when a job may be done, in seconds since 1970: iterations, or steps, take alike.

    None before the first iteration is done, or the first steps are.
    """
    if progress.steps_per_s is not None and progress.step != "done":
        return round(now + (progress.total - progress.done) / progress.steps_per_s)
    whole = [one for one in progress.history if one.iteration >= 1 and "swap" in one.seconds]
    if not whole or progress.step == "done":
        return None
    mean_s = sum(sum(one.seconds.values()) for one in whole) / len(whole)
    current = next((o for o in progress.history if o.iteration == progress.iteration), None)
    spent_s = sum(current.seconds.values()) if current and current not in whole else 0.0
    left_s = (progress.iterations - len(whole)) * mean_s - spent_s
    return round(now + max(0.0, left_s))
