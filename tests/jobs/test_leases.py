"""A job is run by one owner at a time, and one that is gone loses it to another."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Literal

import pytest
from sqlalchemy import Engine, select, update

from steerward.jobs.database import database_time, reading, writing
from steerward.jobs.leases import LeaseLost
from steerward.jobs.records import JobRecord
from steerward.jobs.store import JobStore
from steerward.jobs.tables import jobs
from steerward.protocol.fine_tuning import JobProgress
from tests.jobs.conftest import CreateJob

Asked = Literal["pause", "cancel"]
Ended = Literal["paused", "cancelled"]

MODELS = ["pocket-policy"]
TAKE_ALL = """
import sys
from steerward.jobs.database import open_database
from steerward.jobs.store import JobStore

engine = open_database(sys.argv[1])
store = JobStore(engine)
print("ready", flush=True)
sys.stdin.readline()
while record := store.acquire(sys.argv[2], models=["pocket-policy"], lease_s=60):
    print(record.id, flush=True)
engine.dispose()
"""


def take(store: JobStore, owner: str, *, lease_s: float = 60.0) -> JobRecord | None:
    return store.acquire(owner, models=MODELS, lease_s=lease_s)


def held(store: JobStore, owner: str = "first", *, lease_s: float = 60.0) -> str:
    record = take(store, owner, lease_s=lease_s)
    assert record is not None
    return record.id


def expire(engine: Engine, job_id: str) -> None:
    """Let a lease be over, as time would."""
    with writing(engine) as connection:
        change = update(jobs).where(jobs.c.id == job_id)
        connection.execute(change.values(lease_until=database_time(connection) - 1.0))


def time_left(engine: Engine, job_id: str) -> float:
    """Return the seconds that a lease has left."""
    with reading(engine) as connection:
        ends_at = connection.execute(select(jobs.c.lease_until).where(jobs.c.id == job_id))
        return ends_at.scalar_one() - database_time(connection)


def test_the_oldest_job_of_the_models_is_taken(store: JobStore, create_job: CreateJob) -> None:
    create_job(model="other")
    oldest, newest = create_job(), create_job()
    taken = take(store, "first")
    assert taken is not None
    assert (taken.id, taken.status) == (oldest.id, "running")
    assert held(store, "second") == newest.id
    assert take(store, "third") is None
    assert store.acquire("third", models=[], lease_s=60) is None


def test_threads_of_two_servers_take_each_job_once(
    open_engine: Callable[[], Engine], create_job: CreateJob
) -> None:
    expected = [create_job().id for _ in range(12)]
    taken: list[str] = []
    start = threading.Barrier(4)

    def serve(store: JobStore, owner: str) -> None:
        start.wait(30)
        while record := take(store, owner):
            taken.append(record.id)

    stores = [JobStore(open_engine()) for _ in range(2)]
    threads = [threading.Thread(target=serve, args=(stores[i % 2], f"{i}")) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(taken) == sorted(expected)


def test_two_processes_take_each_of_20_jobs_once(
    database_url: str, store: JobStore, create_job: CreateJob
) -> None:
    expected = [create_job().id for _ in range(20)]
    servers = [
        subprocess.Popen(
            [sys.executable, "-c", TAKE_ALL, database_url, f"server-{number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for server in servers:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
    taken = [server.communicate("go\n", timeout=60)[0].split() for server in servers]
    assert [server.returncode for server in servers] == [0, 0]
    assert sorted(taken[0] + taken[1]) == sorted(expected)


def test_an_expired_lease_is_taken_over_and_the_first_owner_learns_it(
    engine: Engine, store: JobStore, create_job: CreateJob
) -> None:
    create_job()
    job_id = held(store, "first")
    assert take(store, "second") is None
    expire(engine, job_id)
    assert held(store, "second") == job_id
    progress = JobProgress(iterations=3, iteration=2)
    for act in (
        lambda owner: store.heartbeat(job_id, owner, lease_s=60),
        lambda owner: store.save_progress(job_id, owner, progress, estimated_finish=5),
        lambda owner: store.finish(job_id, owner, status="succeeded"),
        lambda owner: store.release(job_id, owner),
    ):
        with pytest.raises(LeaseLost, match=f"first does not run {job_id} any more"):
            act("first")
    record = store.get(job_id)
    assert (record.status, record.progress.iteration) == ("running", 0)
    assert store.heartbeat(job_id, "second", lease_s=60) == "none"


def test_an_owner_that_was_late_goes_on_if_nobody_took_its_job(
    engine: Engine, store: JobStore, create_job: CreateJob
) -> None:
    create_job()
    job_id = held(store)
    expire(engine, job_id)
    assert store.heartbeat(job_id, "first", lease_s=60) == "none"
    assert take(store, "second") is None


def test_a_heartbeat_keeps_the_job(engine: Engine, store: JobStore, create_job: CreateJob) -> None:
    create_job()
    job_id = held(store, lease_s=60.0)
    assert time_left(engine, job_id) <= 60.0
    store.heartbeat(job_id, "first", lease_s=600.0)
    assert 60.0 < time_left(engine, job_id) <= 600.0
    assert take(store, "second") is None


@pytest.mark.parametrize(("action", "status"), [("pause", "paused"), ("cancel", "cancelled")])
def test_what_is_asked_of_a_running_job_reaches_its_owner(
    store: JobStore, create_job: CreateJob, action: Asked, status: Ended
) -> None:
    create_job()
    job_id = held(store)
    asked = store.request(job_id, action)
    assert (asked.status, asked.request) == ("running", action)
    assert store.heartbeat(job_id, "first", lease_s=60) == action
    store.finish(job_id, "first", status=status)
    record = store.get(job_id)
    assert (record.status, record.request) == (status, "none")
    with pytest.raises(LeaseLost):
        store.heartbeat(job_id, "first", lease_s=60)


@pytest.mark.parametrize(("action", "status"), [("pause", "paused"), ("cancel", "cancelled")])
def test_what_is_asked_of_a_job_whose_server_died_is_done_at_once(
    engine: Engine, store: JobStore, create_job: CreateJob, action: Asked, status: Ended
) -> None:
    create_job()
    job_id = held(store)
    expire(engine, job_id)
    assert store.request(job_id, action).status == status
    assert take(store, "second") is None
    with pytest.raises(LeaseLost):
        store.heartbeat(job_id, "first", lease_s=60)


@pytest.mark.parametrize(("action", "status"), [("pause", "paused"), ("cancel", "cancelled")])
def test_a_server_that_dies_before_it_did_what_it_was_asked_is_not_followed(
    engine: Engine, store: JobStore, create_job: CreateJob, action: Asked, status: Ended
) -> None:
    create_job()
    job_id = held(store)
    store.request(job_id, action)
    expire(engine, job_id)
    waiting = create_job()
    assert held(store, "second") == waiting.id
    assert store.get(job_id).status == status


def test_a_job_that_is_given_back_waits_in_its_old_place(
    store: JobStore, create_job: CreateJob
) -> None:
    create_job()
    job_id = held(store)
    create_job()
    store.save_progress(job_id, "first", JobProgress(iterations=3, iteration=2), estimated_finish=9)
    store.release(job_id, "first")
    record = store.get(job_id)
    assert (record.status, record.progress.iteration) == ("queued", 2)
    assert record.estimated_finish is None
    assert held(store, "second") == job_id


def test_a_job_that_is_given_back_does_what_it_was_asked(
    store: JobStore, create_job: CreateJob
) -> None:
    create_job()
    job_id = held(store)
    store.request(job_id, "cancel")
    store.release(job_id, "first")
    record = store.get(job_id)
    assert record.status == "cancelled"
    assert record.finished_at is not None
