"""Policies that jobs made, by name. Each function is one step inside a transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from steerward.jobs.database import database_time
from steerward.jobs.records import FineTuned, JobRecord
from steerward.jobs.tables import fine_tuned, jobs
from steerward.protocol.errors import InvalidRequest, NotFound, brief
from steerward.protocol.fine_tuning import FINAL_STATUSES

# The one statement of this kind that both databases have, and that SQLAlchemy has for each.
_INSERT = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}

_NAME_BEGIN = "ft:"


def save(connection: Connection, **values: Any) -> FineTuned:
    """Keep a policy in place of an earlier one of its name."""
    values["created_at"] = database_time(connection)
    connection.execute(
        _INSERT[connection.dialect.name](fine_tuned)
        .values(**values)
        .on_conflict_do_update(index_elements=["name"], set_=values)
    )
    return get(connection, values["name"])


def list_all(connection: Connection) -> list[FineTuned]:
    """Return all policies, the oldest first."""
    query = select(fine_tuned).order_by(fine_tuned.c.created_at, fine_tuned.c.name)
    return [_policy(row) for row in connection.execute(query)]


def get(connection: Connection, name: str) -> FineTuned:
    """Return a policy.

    Raises:
        NotFound: If there is none of this name.
    """
    query = select(fine_tuned).where(fine_tuned.c.name == name)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise _missing(name)
    return _policy(row)


def owner_of(connection: Connection, name: str) -> str | None:
    """Return the job that a name belongs to; None if there is none.

    It belongs to the job that made, or is making, the policy of that name, and to jobs that run
    or wait with it to begin from.
    """
    made = connection.execute(select(fine_tuned.c.job_id).where(fine_tuned.c.name == name))
    if (job_id := made.scalar_one_or_none()) is not None:
        return job_id
    query = select(jobs.c.id, jobs.c.model, jobs.c.status, jobs.c.suffix, jobs.c.method)
    unfinished = query.where(jobs.c.status.not_in(FINAL_STATUSES)).order_by(jobs.c.sequence)
    for job in connection.execute(unfinished):
        begins_with_it = job.model == name and job.status in ("queued", "running")
        end = _name_end(job.id, job.suffix or job.method)
        is_making_it = name.startswith(_NAME_BEGIN) and name.endswith(end)
        if begins_with_it or is_making_it:
            return job.id
    return None


def fine_tuned_name(base: str, job: JobRecord) -> str:
    """Return the name of the policy that a job makes, in OpenAI's manner.

    Args:
        base: Name of the policy that is served, of which the job's model may be a variant.
        job: Whose suffix, or else its method, is part of the name.
    """
    return f"{_NAME_BEGIN}{base}{_name_end(job.id, job.suffix or job.method)}"


def _name_end(job_id: str, word: str) -> str:
    return f":{word}:{job_id[-8:]}"


def remove(connection: Connection, name: str) -> None:
    """Forget a policy; its folder stays.

    Raises:
        NotFound: If there is none of this name.
        InvalidRequest: If a job that has not ended began with it.
    """
    query = select(jobs.c.id, jobs.c.status).where(
        jobs.c.model == name, jobs.c.status.not_in(FINAL_STATUSES)
    )
    job = connection.execute(query.order_by(jobs.c.sequence).limit(1)).one_or_none()
    if job is not None:
        raise InvalidRequest(
            f"{brief(name)} is needed by {job.id}, which is {job.status} and began with it; wait "
            "for its end or cancel it first",
            param="model",
        )
    removed = connection.execute(delete(fine_tuned).where(fine_tuned.c.name == name))
    if not removed.rowcount:
        raise _missing(name)


def _missing(name: str) -> NotFound:
    return NotFound(
        f"there is no fine-tuned policy {brief(ascii(name)[1:-1])!r}; GET /v1/models lists them"
    )


def _policy(row: Row[Any]) -> FineTuned:
    return FineTuned(
        name=row.name,
        job_id=row.job_id,
        base=row.base,
        kind=row.kind,
        folder=row.folder,
        weight_version=row.weight_version,
        created_at=int(row.created_at),
    )
