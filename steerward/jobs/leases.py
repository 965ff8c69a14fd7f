"""Who runs a job: one owner at a time, for as long as it says that it is alive.

An owner that was away for longer than its lease may have lost the job to another. Everything
that it does is therefore conditional on still being the owner, in the statement itself. Each
function is one step inside a transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, and_, or_, select, update

from steerward.jobs.database import DatabaseTime, database_time
from steerward.jobs.records import JobRecord, job_record
from steerward.jobs.states import JobState, PendingRequest, settled
from steerward.jobs.tables import jobs
from steerward.protocol.fine_tuning import FINAL_STATUSES

_EXPIRED = and_(jobs.c.status == "running", jobs.c.lease_until <= DatabaseTime())


class LeaseLost(Exception):
    """The job is no longer this owner's: it must stop, and change nothing more.

    Args:
        job_id: The job.
        owner: Who is no longer its owner.
    """

    def __init__(self, job_id: str, owner: str) -> None:
        super().__init__(f"{owner} does not run {job_id} any more: another does, or it has ended")
        self.job_id = job_id
        self.owner = owner


def acquire(
    connection: Connection, owner: str, *, models: Sequence[str], lease_s: float
) -> JobRecord | None:
    """Take the oldest job that waits, or whose owner is gone; None if there is none.

    A job whose owner went before it did what it was asked for does that now, and is not taken.
    """
    oldest = (
        select(jobs)
        .where(jobs.c.model.in_(models), or_(jobs.c.status == "queued", _EXPIRED))
        .order_by(jobs.c.sequence)
        .limit(1)
        # PostgreSQL: a row that another transaction is about to take is none for this one.
        .with_for_update(skip_locked=True)
    )
    while (row := connection.execute(oldest).one_or_none()) is not None:
        record = job_record(row)
        if record.request == "none":
            values = {"status": "running", "owner": owner}
            _change(connection, record.id, **values, lease_until=DatabaseTime() + lease_s)
            return locked(connection, record.id)
        move(connection, record.id, settled(record.state))
    return None


def extend(connection: Connection, job_id: str, owner: str, *, lease_s: float) -> PendingRequest:
    """Let the lease run from now, and return what the job is asked for.

    Raises:
        LeaseLost: If the job is not the owner's any more.
    """
    change_held(connection, job_id, owner, lease_until=DatabaseTime() + lease_s)
    return connection.execute(select(jobs.c.request).where(jobs.c.id == job_id)).scalar_one()


def give_back(connection: Connection, job_id: str, owner: str) -> None:
    """Give a job back to wait for another server, or to end as it was asked to.

    Raises:
        LeaseLost: If the job is not the owner's any more.
    """
    change_held(connection, job_id, owner, lease_until=DatabaseTime())
    record = locked(connection, job_id)
    assert record is not None
    move(connection, job_id, settled(record.state))


def is_held(connection: Connection, job_id: str) -> bool:
    """Return whether somebody runs a job and is alive."""
    held = select(jobs.c.id).where(
        jobs.c.id == job_id, jobs.c.status == "running", jobs.c.lease_until > DatabaseTime()
    )
    return connection.execute(held).one_or_none() is not None


def locked(connection: Connection, job_id: str) -> JobRecord | None:
    """Return a job that nobody else can change until this transaction ends; None: there is none."""
    row = connection.execute(
        select(jobs).where(jobs.c.id == job_id).with_for_update()
    ).one_or_none()
    return None if row is None else job_record(row)


def move(connection: Connection, job_id: str, state: JobState) -> None:
    """Put a job into a state; unless it goes on running, nobody owns it from then on."""
    values: dict[str, Any] = {"status": state.status, "request": state.request}
    if state.status != "running":
        values |= {"owner": None, "lease_until": None, "estimated_finish": None}
    if state.status in FINAL_STATUSES:
        values["finished_at"] = database_time(connection)
    if state.status == "queued":
        # Why it paused by itself is over.
        values["error"] = None
    _change(connection, job_id, **values)


def change_held(connection: Connection, job_id: str, owner: str, **values: Any) -> None:
    """Change columns of a job, if it is still the owner's.

    Raises:
        LeaseLost: If it is not.
    """
    changed = connection.execute(
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.owner == owner, jobs.c.status == "running")
        .values(**values)
    )
    if changed.rowcount != 1:
        raise LeaseLost(job_id, owner)


def _change(connection: Connection, job_id: str, **values: Any) -> None:
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(**values))
