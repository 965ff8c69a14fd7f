"""A database of an earlier version is brought up to date in place, with all that is in it."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Engine, inspect, text, update

from steerward.jobs.database import reading, writing
from steerward.jobs.store import JobStore
from steerward.jobs.tables import METADATA, SCHEMA_VERSION, schema_version
from steerward.protocol.rsf import RsfSettings
from tests.jobs.conftest import CreateJob


def downgrade(engine: Engine) -> None:
    """Make the tables those of version 1."""
    with writing(engine) as connection:
        connection.execute(text("ALTER TABLE jobs DROP COLUMN method"))
        connection.execute(update(schema_version).values(version=1))


def shape(engine: Engine) -> dict[str, dict[str, bool]]:
    """Return the columns of all tables, each with whether it may be empty."""
    found = inspect(engine)
    return {
        table: {column["name"]: column["nullable"] for column in found.get_columns(table)}
        for table in METADATA.tables
    }


def test_jobs_of_version_1_are_of_rejection_sampling(
    open_engine: Callable[[], Engine], engine: Engine, create_job: CreateJob
) -> None:
    job = create_job(rsf={"iterations": 3}, suffix="mine")
    whole = shape(engine)
    downgrade(engine)
    assert "method" not in shape(engine)["jobs"]

    upgraded = open_engine()
    assert shape(upgraded) == whole
    record = JobStore(upgraded).get(job.id)
    assert record == job
    assert record.method == "rsf"
    assert isinstance(record.settings, RsfSettings)
    with reading(upgraded) as connection:
        assert connection.execute(schema_version.select()).one().version == SCHEMA_VERSION
    # Once is enough.
    assert JobStore(open_engine()).get(job.id) == job


def test_a_row_that_version_1_was_writing_is_of_rejection_sampling(
    open_engine: Callable[[], Engine], engine: Engine, create_job: CreateJob
) -> None:
    # Servers are stopped before: what they do not know of is the method, and they would run any
    # job by rejection sampling. A row that one of them has still written is read all the same.
    job = create_job()
    downgrade(engine)
    upgraded = open_engine()
    names = ", ".join(
        name for name in shape(upgraded)["jobs"] if name not in ("sequence", "method")
    )
    with writing(upgraded) as connection:
        connection.execute(
            text(f"INSERT INTO jobs ({names}) SELECT {names.replace('id,', ':new,', 1)} FROM jobs"),
            {"new": "ftjob-" + "1" * 24},
        )
    assert JobStore(upgraded).get("ftjob-" + "1" * 24).method == "rsf"
    assert JobStore(upgraded).get(job.id).method == "rsf"
