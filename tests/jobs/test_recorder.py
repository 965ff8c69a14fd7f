"""What a running job tells, in the store: in order, not too often, and only while it is its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from steerward.jobs.database import writing
from steerward.jobs.recorder import Recorder, estimated_finish
from steerward.jobs.records import JobRecord
from steerward.jobs.store import JobStore
from steerward.protocol.fine_tuning import IterationProgress, JobProgress
from tests.jobs.conftest import CreateJob

pytestmark = pytest.mark.anyio


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def record(store: JobStore, create_job: CreateJob) -> JobRecord:
    create_job()
    found = store.acquire("me", models=["pocket-policy"], lease_s=60)
    assert found is not None
    return found


async def test_all_is_written_when_the_job_ends(store: JobStore, record: JobRecord) -> None:
    async with Recorder(store, record, "me") as recorder:
        for done in range(50):
            recorder.progress(JobProgress(step="sampling", iterations=2, done=done, total=50))
        recorder.event("one")
        recorder.event("two", level="warn", type="metrics", data={"kl": 0.5})
        progress = IterationProgress(iteration=1, loss=0.5, kl=0.1, direction_score=0.3)
        recorder.published(progress, Path("/weights"), "v1")
    assert store.get(record.id).progress.done == 49
    events, _ = store.events(record.id, after=None, limit=9, newest_first=False)
    assert [(event.message, event.level) for event in events] == [("one", "info"), ("two", "warn")]
    (checkpoint,), _ = store.checkpoints(record.id, after=None, limit=9)
    assert checkpoint.metrics == {"train_loss": 0.5, "kl": 0.1, "direction_score": 0.3}
    assert (checkpoint.weight_version, checkpoint.step_number) == ("v1", 1)


async def test_nothing_more_is_written_of_a_job_that_is_lost(
    store: JobStore, record: JobRecord
) -> None:
    async with Recorder(store, record, "me") as recorder:
        store.release(record.id, "me")
        recorder.progress(JobProgress(step="sampling", iterations=2))
        recorder.event("too late")
    assert store.events(record.id, after=None, limit=9) == ([], False)
    async with Recorder(store, record, "me") as recorder:
        recorder.abandon()
        recorder.event("too late")
    assert store.events(record.id, after=None, limit=9) == ([], False)


async def test_what_cannot_be_written_does_not_end_the_job(
    store: JobStore, record: JobRecord, caplog: pytest.LogCaptureFixture
) -> None:
    async with Recorder(store, record, "me") as recorder:
        recorder.event("no number", data={"kl": object()})
        recorder.event("next")
    events, _ = store.events(record.id, after=None, limit=9)
    assert [event.message for event in events] == ["next"]
    assert "was not written" in caplog.text


async def test_a_database_that_hangs_does_not_hold_the_end_up(
    engine: Engine,
    store: JobStore,
    record: JobRecord,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("steerward.jobs.recorder._FLUSH_S", 0.2)
    with writing(engine):
        async with Recorder(store, record, "me") as recorder:
            # It waits for the other transaction.
            recorder.event("one")
            recorder.event("two")
    assert "was not written in time" in caplog.text
    # The one in the database's hands may come; nothing after it does.
    recorder._pool.shutdown(wait=True)
    events, _ = store.events(record.id, after=None, limit=9)
    assert [event.message for event in events] == ["one"]


def test_the_end_is_foreseen_from_whole_iterations() -> None:
    def of(iteration: int, **seconds: float) -> IterationProgress:
        return IterationProgress(iteration=iteration, seconds=seconds)

    start = of(0, evaluation=1.0)
    first = JobProgress(
        step="training", iteration=1, iterations=3, history=[start, of(1, sampling=9)]
    )
    assert estimated_finish(first, now=1000.0) is None
    history = [start, of(1, sampling=60.0, swap=40.0), of(2, sampling=30.0)]
    second = JobProgress(step="training", iteration=2, iterations=3, history=history)
    assert estimated_finish(second, now=1000.0) == 1000 + 200 - 30
    done = second.model_copy(update={"step": "done"})
    assert estimated_finish(done, now=1000.0) is None


def test_the_end_is_foreseen_from_steps_where_there_are_no_iterations() -> None:
    begun = JobProgress(step="training", iterations=0, done=10, total=50)
    assert estimated_finish(begun, now=1000.0) is None
    steady = begun.model_copy(update={"steps_per_s": 0.5})
    assert estimated_finish(steady, now=1000.0) == 1080
    assert estimated_finish(steady.model_copy(update={"step": "done"}), now=1000.0) is None
