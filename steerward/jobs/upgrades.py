"""What brings the tables of an earlier Steerward up to date, in place.

Each step is run once, in order, inside the transaction that opens the database: a server that is
killed meanwhile leaves the tables as they were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, text, update

from steerward.jobs.tables import SCHEMA_VERSION, schema_version

# By the version that they lead to; each is written once and never changed.
_STEPS: Mapping[int, Sequence[str]] = {
    2: ("ALTER TABLE jobs ADD COLUMN method VARCHAR NOT NULL DEFAULT 'rsf'",),
}


def upgrade(connection: Connection, *, version: int) -> None:
    """Change tables of a version into those of today.

    Args:
        connection: In a transaction that nobody else writes in.
        version: Of the tables as they are, at most today's.
    """
    for reached in range(version + 1, SCHEMA_VERSION + 1):
        for statement in _STEPS[reached]:
            connection.execute(text(statement))
    connection.execute(update(schema_version).values(version=SCHEMA_VERSION))
