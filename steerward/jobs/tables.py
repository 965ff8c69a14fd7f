"""What the database holds: files, jobs, their events and checkpoints, fine-tuned policies.

Texts of any content are kept as JSON in ASCII (`Document`), since PostgreSQL's text knows no NUL.
Times are seconds since 1970 by the database's clock. Order is by `sequence`, which the database
counts up.
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

SCHEMA_VERSION = 2
"""Of the tables below; a database with a higher one was made by a later Steerward, and one with a
lower one is brought up to it by `steerward.jobs.upgrades`."""


class Document(TypeDecorator[Any]):
    """A JSON value, as text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Return the text of a value."""
        return None if value is None else json.dumps(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002
        """Return the value of a text."""
        return None if value is None else json.loads(value)


# SQLite counts up only in a column of this very type.
_SEQUENCE = BigInteger().with_variant(Integer(), "sqlite")

METADATA = MetaData()

schema_version = Table(
    "schema_version",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
)

jobs = Table(
    "jobs",
    METADATA,
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("model", String, nullable=False),
    Column("status", String, nullable=False),
    Column("request", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("finished_at", Float),
    Column("error", Document),
    Column("fine_tuned_model", String),
    Column("training_file", String, nullable=False),
    Column("validation_file", String),
    Column("sft_file", String),
    Column("result_files", Document, nullable=False),
    Column("trained_tokens", BigInteger),
    Column("seed", BigInteger, nullable=False),
    Column("suffix", String),
    Column("metadata", Document),
    Column("method", String, nullable=False, server_default="rsf"),
    Column("settings", Document, nullable=False),
    Column("progress", Document, nullable=False),
    Column("estimated_finish", BigInteger),
    Column("owner", String),
    Column("lease_until", Float),
    Index("jobs_by_status", "status", "sequence"),
    # Without it SQLite gives the number of a row that was deleted to the next.
    sqlite_autoincrement=True,
)

job_metadata = Table(
    "job_metadata",
    METADATA,
    Column("job_id", String, ForeignKey("jobs.id"), primary_key=True),
    Column("key", Document, primary_key=True),
    Column("value", Document, nullable=False),
)

events = Table(
    "events",
    METADATA,
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=True),
    Column("job_id", String, ForeignKey("jobs.id"), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("level", String, nullable=False),
    Column("type", String, nullable=False),
    Column("message", Document, nullable=False),
    Column("data", Document),
    Index("events_by_job", "job_id", "sequence"),
    sqlite_autoincrement=True,
)

checkpoints = Table(
    "checkpoints",
    METADATA,
    Column("id", String, primary_key=True),
    Column("job_id", String, ForeignKey("jobs.id"), nullable=False),
    Column("step_number", Integer, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("folder", Document, nullable=False),
    Column("metrics", Document, nullable=False),
    Column("weight_version", String, nullable=False),
    UniqueConstraint("job_id", "step_number"),
)

fine_tuned = Table(
    "fine_tuned",
    METADATA,
    Column("name", String, primary_key=True),
    Column("job_id", String, nullable=False),
    Column("base", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("folder", Document, nullable=False),
    Column("weight_version", String, nullable=False),
    Column("created_at", Float, nullable=False),
)

files = Table(
    "files",
    METADATA,
    Column("sequence", _SEQUENCE, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    # A row stands for a file that is there only while this is true: it is false before the file
    # is in its place, and again before the file is removed.
    Column("is_kept", Boolean, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("filename", Document, nullable=False),
    Column("purpose", String, nullable=False),
    Column("holds", String, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("sha256", String, nullable=False),
    sqlite_autoincrement=True,
)
