"""Taking jobs by lease, and ending them clearly, whatever the work or the database does."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from steerward.jobs.database import open_database
from steerward.jobs.files import FileStore
from steerward.jobs.records import JobRecord
from steerward.jobs.rsf.observer import Observer
from steerward.jobs.runner import JobOutcome, JobRunner
from steerward.jobs.states import PendingRequest
from steerward.jobs.store import JobStore
from steerward.protocol.errors import InvalidRequest, NotReady, SteerwardError, StorageFull
from steerward.protocol.fine_tuning import JobRequest
from tests.jobs.conftest import PROMPTS, upload

pytestmark = pytest.mark.anyio

MODEL = "pocket-policy"
DONE = JobOutcome("ft:pocket", ["file-1"], 7)
Work = Callable[[JobRecord, Observer], Awaitable[JobOutcome]]


class AwayStore(JobStore):
    """A real store whose database can be out of reach."""

    is_away = False
    hangs = False
    heartbeats = 0

    def acquire(self, owner: str, *, models: Sequence[str], lease_s: float) -> JobRecord | None:
        self._reach()
        return super().acquire(owner, models=models, lease_s=lease_s)

    def heartbeat(self, job_id: str, owner: str, *, lease_s: float) -> PendingRequest:
        self.heartbeats += 1
        self._reach()
        return super().heartbeat(job_id, owner, lease_s=lease_s)

    def finish(self, job_id: str, owner: str, **values: Any) -> None:
        self._reach()
        super().finish(job_id, owner, **values)

    def release(self, job_id: str, owner: str) -> None:
        self._reach()
        super().release(job_id, owner)

    def _reach(self) -> None:
        if self.hangs:
            time.sleep(3)
        if self.is_away:
            raise NotReady("the database cannot be used now")


@pytest.fixture
def store(tmp_path: Path) -> AwayStore:
    return AwayStore(open_database(f"sqlite:///{tmp_path / 'state.sqlite'}"))


@pytest.fixture
def job(store: AwayStore, tmp_path: Path) -> str:
    files = FileStore(store._engine, tmp_path / "files", max_bytes=9999, max_rows=99)
    body = {"model": MODEL, "training_file": upload(files, PROMPTS), "method": {"type": "rsf"}}
    return store.create(JobRequest.model_validate(body), seed=0).id


@asynccontextmanager
async def running(
    store: JobStore, work: Work, *, lease_s: float = 60.0, owner: str = "one"
) -> AsyncIterator[JobRunner]:
    runner = JobRunner(store, owner=owner, models=lambda: [MODEL], work=work, lease_s=lease_s)
    runner.start()
    yield runner
    await runner.close()


async def until(condition: Callable[[], bool], *, wait_s: float = 30.0) -> None:
    async with asyncio.timeout(wait_s):
        while not condition():
            await asyncio.sleep(0.01)


class Working:
    """Work that goes on until it is stopped, and says what became of it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun, self.stopped = 0, 0
        self.is_over = asyncio.Event()
        self._error = error

    async def __call__(self, record: JobRecord, observer: Observer) -> JobOutcome:
        assert record.status == "running"
        self.begun += 1
        observer.event("at work")
        try:
            await self.is_over.wait()
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        if self._error is not None:
            raise self._error
        return DONE


def messages(store: JobStore, job: str) -> list[str]:
    events, _ = store.events(job, after=None, limit=50, newest_first=False)
    return [event.message for event in events]


async def test_a_job_that_succeeds_says_what_it_made(store: AwayStore, job: str) -> None:
    work = Working()
    work.is_over.set()
    async with running(store, work):
        await until(lambda: store.get(job).status == "succeeded")
    record = store.get(job)
    assert (record.fine_tuned_model, record.result_files) == ("ft:pocket", ("file-1",))
    assert record.trained_tokens == 7
    assert messages(store, job) == ["at work", "the job has succeeded: ft:pocket is served"]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidRequest("no completion was selected"), "failed", "invalid_request"),
        (NotReady("the reward model is away"), "paused", "not_ready"),
        (StorageFull("no room"), "paused", "storage_full"),
        (OSError(errno.ENOSPC, "No space left on device"), "paused", "storage_full"),
        (OSError(errno.EFBIG, "File too large"), "paused", "storage_full"),
        (OSError(errno.EACCES, "Permission denied"), "failed", "error"),
        (ZeroDivisionError(), "failed", "error"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_errors_pause_what_can_go_on_and_fail_the_rest(
    store: AwayStore, job: str, error: Exception, status: str, code: str
) -> None:
    work = Working(error)
    work.is_over.set()
    async with running(store, work):
        await until(lambda: store.get(job).status == status)
    found = store.get(job).error
    assert found is not None
    assert found.code == code
    assert messages(store, job)[-1].startswith(f"the job is {status}: {found.message}")


@pytest.mark.parametrize(("action", "status"), [("pause", "paused"), ("cancel", "cancelled")])
async def test_what_is_asked_stops_the_work_at_once(
    store: AwayStore, job: str, action: str, status: str
) -> None:
    work = Working()
    async with running(store, work) as runner:
        await until(lambda: work.begun == 1)
        store.request(job, action)  # pyright: ignore[reportArgumentType]
        runner.wake()
        await until(lambda: store.get(job).status == status)
    assert (work.begun, work.stopped) == (1, 1)
    assert store.get(job).error is None
    assert messages(store, job)[-1] == f"the job is {status}"


async def test_a_job_resumed_while_it_was_being_paused_goes_on(store: AwayStore, job: str) -> None:
    runs: list[str] = []

    async def work(record: JobRecord, observer: Observer) -> JobOutcome:
        del observer
        runs.append(record.id)
        if len(runs) > 1:
            return DONE
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.to_thread(store.request, job, "resume")
            raise
        return DONE

    async with running(store, work) as runner:
        await until(lambda: len(runs) == 1)
        store.request(job, "pause")
        runner.wake()
        await until(lambda: store.get(job).status == "succeeded")
    assert len(runs) == 2


async def test_a_cancellation_counts_more_than_an_error_on_the_way(
    store: AwayStore, job: str
) -> None:
    is_begun = asyncio.Event()

    async def work(record: JobRecord, observer: Observer) -> JobOutcome:
        del record, observer
        is_begun.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise InvalidRequest("fell over while it stopped") from None
        return DONE

    async with running(store, work) as runner:
        await is_begun.wait()
        store.request(job, "cancel")
        runner.wake()
        await until(lambda: store.get(job).status == "cancelled")


async def test_a_server_that_stops_gives_the_job_back(store: AwayStore, job: str) -> None:
    work = Working()
    async with running(store, work):
        await until(lambda: work.begun == 1)
    assert work.stopped == 1
    assert store.get(job).status == "queued"
    over = Working()
    over.is_over.set()
    async with running(store, over, owner="two"):
        await until(lambda: store.get(job).status == "succeeded")


async def test_a_database_that_comes_back_within_the_lease_costs_nothing(
    store: AwayStore, job: str
) -> None:
    work = Working()
    async with running(store, work, lease_s=20.0):
        await until(lambda: work.begun == 1)
        seen = store.heartbeats
        store.is_away = True
        await until(lambda: store.heartbeats >= seen + 2)
        work.is_over.set()
        await asyncio.sleep(0.2)
        store.is_away = False
        await until(lambda: store.get(job).status == "succeeded")
    assert (work.begun, work.stopped) == (1, 0)


@pytest.mark.parametrize("hangs", [False, True], ids=["refuses", "hangs"])
async def test_work_stops_when_the_lease_would_have_ended(
    store: AwayStore, job: str, *, hangs: bool
) -> None:
    work = Working()
    async with running(store, work, lease_s=1.0):
        await until(lambda: work.begun == 1)
        store.is_away, store.hangs = True, hangs
        # A busy machine may have cost it the lease before.
        stopped = work.stopped
        await until(lambda: work.stopped == work.begun > stopped)
        assert store.get(job).status == "running"
        store.is_away = store.hangs = False
        work.is_over.set()
        await until(lambda: store.get(job).status == "succeeded")
    assert work.begun == work.stopped + 1


async def test_a_job_of_two_servers_runs_once_and_moves_when_one_falls_silent(
    store: AwayStore, job: str, tmp_path: Path
) -> None:
    other = JobStore(open_database(f"sqlite:///{tmp_path / 'state.sqlite'}"))
    first, second = Working(), Working()
    async with running(store, first, lease_s=4.0):
        await until(lambda: first.begun == 1)
        async with running(other, second, lease_s=4.0, owner="two"):
            await asyncio.sleep(4.5)
            assert (first.begun, second.begun) == (1, 0)
            store.is_away = True
            await until(lambda: second.begun == 1)
            await until(lambda: first.stopped == 1)
            second.is_over.set()
            await until(lambda: other.get(job).status == "succeeded")
            store.is_away = False
    assert (first.begun, second.begun) == (1, 1)


async def test_work_that_failed_for_a_reason_nobody_knows_is_told_as_typed(
    store: AwayStore, job: str
) -> None:
    work = Working(SteerwardError("there is no room for two models"))
    work.is_over.set()
    async with running(store, work):
        await until(lambda: store.get(job).status == "failed")
    error = store.get(job).error
    assert error is not None
    assert error.message == "there is no room for two models"
