"""Policies that jobs made, by name. Each function is one step inside a transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from steerward.jobs.database import database_time
from steerward.jobs.records import FineTuned
from steerward.jobs.tables import fine_tuned
from steerward.protocol.errors import NotFound, brief

# The one statement of this kind that both databases have, and that SQLAlchemy has for each.
_INSERT = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


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


def remove(connection: Connection, name: str) -> None:
    """Forget a policy; its folder stays.

    Raises:
        NotFound: If there is none of this name.
    """
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
