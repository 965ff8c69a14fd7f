"""What happened to a job, and the policies after each of its iterations.

Each function is one step inside a transaction.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from steerward.jobs import leases
from steerward.jobs.database import database_time
from steerward.jobs.paging import page
from steerward.jobs.records import check_id, missing, new_id
from steerward.jobs.tables import checkpoints, events
from steerward.protocol.fine_tuning import EventLevel, EventType, JobCheckpoint, JobEvent

_EVENT_ID = re.compile(r"ftevent-(\d{16})")


def add_event(
    connection: Connection,
    job_id: str,
    message: str,
    *,
    level: EventLevel,
    type: EventType,
    data: Mapping[str, Any] | None,
) -> JobEvent:
    """Keep an event; its id follows those of all earlier ones of the job.

    Raises:
        NotFound: If there is no such job.
    """
    _lock_job(connection, job_id)
    row = connection.execute(
        insert(events)
        .values(
            job_id=job_id,
            created_at=database_time(connection),
            level=level,
            type=type,
            message=message,
            data=None if data is None else dict(data),
        )
        .returning(events)
    ).one()
    return _event(row)


def list_events(
    connection: Connection, job_id: str, *, after: str | None, limit: int, newest_first: bool
) -> tuple[list[JobEvent], bool]:
    """Return a page of a job's events, and whether there are more.

    Raises:
        NotFound: If `after` is no event of the job.
    """
    position = None
    if after is not None:
        found = _EVENT_ID.fullmatch(after)
        position = None if found is None else int(found[1])
        known = select(events.c.sequence).where(
            events.c.job_id == job_id, events.c.sequence == position
        )
        if position is None or connection.execute(known).one_or_none() is None:
            raise missing(after, what=f"event of {job_id}")
    rows, has_more = page(
        connection,
        events,
        events.c.job_id == job_id,
        order="sequence",
        position=position,
        limit=limit,
        newest_first=newest_first,
    )
    return [_event(row) for row in rows], has_more


def add_checkpoint(
    connection: Connection,
    job_id: str,
    *,
    folder: str,
    step_number: int,
    metrics: Mapping[str, float | None],
    weight_version: str,
) -> JobCheckpoint:
    """Keep a checkpoint in place of an earlier one of the same step.

    Raises:
        NotFound: If there is no such job.
    """
    _lock_job(connection, job_id)
    connection.execute(
        delete(checkpoints).where(
            checkpoints.c.job_id == job_id, checkpoints.c.step_number == step_number
        )
    )
    row = connection.execute(
        insert(checkpoints)
        .values(
            id=new_id("ftckpt"),
            job_id=job_id,
            step_number=step_number,
            created_at=database_time(connection),
            folder=folder,
            metrics=dict(metrics),
            weight_version=weight_version,
        )
        .returning(checkpoints)
    ).one()
    return _checkpoint(row)


def list_checkpoints(
    connection: Connection, job_id: str, *, after: str | None, limit: int
) -> tuple[list[JobCheckpoint], bool]:
    """Return a page of a job's checkpoints, the last step first, and whether there are more.

    Raises:
        NotFound: If `after` is no checkpoint of the job.
    """
    position = None
    if after is not None:
        what = f"checkpoint of {job_id}"
        check_id(after, prefix="ftckpt", what=what)
        position = connection.execute(
            select(checkpoints.c.step_number).where(
                checkpoints.c.job_id == job_id, checkpoints.c.id == after
            )
        ).scalar_one_or_none()
        if position is None:
            raise missing(after, what=what)
    rows, has_more = page(
        connection,
        checkpoints,
        checkpoints.c.job_id == job_id,
        order="step_number",
        position=position,
        limit=limit,
        newest_first=True,
    )
    return [_checkpoint(row) for row in rows], has_more


def _lock_job(connection: Connection, job_id: str) -> None:
    """Let the events of a job get their numbers in the order in which they become visible.

    Otherwise whoever follows them by `after` could miss one that was numbered first and
    committed last.
    """
    if leases.locked(connection, job_id) is None:
        raise missing(job_id, what="job")


def _event(row: Row[Any]) -> JobEvent:
    return JobEvent(
        id=f"ftevent-{row.sequence:016d}",
        created_at=int(row.created_at),
        level=row.level,
        message=row.message,
        type=row.type,
        data=row.data,
    )


def _checkpoint(row: Row[Any]) -> JobCheckpoint:
    return JobCheckpoint(
        id=row.id,
        created_at=int(row.created_at),
        fine_tuning_job_id=row.job_id,
        fine_tuned_model_checkpoint=row.folder,
        step_number=row.step_number,
        metrics=row.metrics,
        weight_version=row.weight_version,
    )
