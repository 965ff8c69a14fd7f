"""The database of files and jobs: SQLite in a file, or PostgreSQL by URL.

SQLite waits for other writers at the start of a transaction, never in its middle, where two
could wait for each other. Nothing that is committed is lost when the machine stops.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Float,
    create_engine,
    event,
    insert,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    TimeoutError,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from steerward.jobs.tables import METADATA, SCHEMA_VERSION, schema_version
from steerward.jobs.upgrades import upgrade
from steerward.protocol.errors import InvalidRequest, NotReady, SteerwardError, StorageFull

_WAIT_S = 30.0
_RETRY_AFTER_S = 2.0
_READS = "steerward_reads"
# Any number that no other program on the database is likely to lock.
_SCHEMA_LOCK = 7_237_119_041


class DatabaseTime(FunctionElement[float]):
    """Seconds since 1970 by the clock of the database, which all of its servers share."""

    type = Float()
    inherit_cache = True


@compiles(DatabaseTime, "sqlite")
def _sqlite_time(element: DatabaseTime, compiler: Any, **options: Any) -> str:  # noqa: ARG001
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(DatabaseTime, "postgresql")
def _postgresql_time(element: DatabaseTime, compiler: Any, **options: Any) -> str:  # noqa: ARG001
    # now() is when the transaction began, which may have waited for a lock since.
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"


def open_database(url: str) -> Engine:
    """Return the database at a URL, its tables made if they are missing, and brought up to date.

    Args:
        url: ``sqlite:///FILE`` or ``postgresql://USER:PASSWORD@HOST/NAME``.

    Raises:
        SteerwardError: If there is no such kind of database, its driver is not installed, it
            cannot be reached, is no database, or was made by a later version.
    """
    place = _parsed(url)
    shown = place.render_as_string(hide_password=True)
    engine = _sqlite(place) if place.get_backend_name() == "sqlite" else _postgresql(place)
    try:
        with writing(engine) as connection:
            _make_tables(connection, shown)
    except (NotReady, StorageFull) as error:
        engine.dispose()
        raise SteerwardError(f"{shown} cannot be opened: {error.message}") from error
    except DBAPIError as error:
        engine.dispose()
        raise SteerwardError(
            f"{shown} cannot be opened: {_reason(error)}; is it a database of Steerward?"
        ) from error
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that changes nothing, and so waits for nobody.

    Raises:
        NotReady: If the database cannot be used now.
        InvalidRequest: If a text holds what the database cannot compare.
    """
    with _told(), engine.connect() as connection:
        yield connection.execution_options(**{_READS: True})


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that is committed at the end, or leaves no trace.

    Raises:
        NotReady: If the database cannot be used now.
        StorageFull: If its disk is.
        InvalidRequest: If a text holds what the database cannot keep.
    """
    with _told(), engine.begin() as connection:
        yield connection


def database_time(connection: Connection) -> float:
    """Return the seconds since 1970 by the database's clock."""
    return float(connection.execute(select(DatabaseTime())).scalar_one())


@contextmanager
def _told() -> Iterator[None]:
    """Tell what went wrong as an error of ours, which names no value of a row."""
    try:
        yield
    except (OperationalError, InterfaceError, TimeoutError) as error:
        if _has_no_room(error):
            raise StorageFull(
                "the disk of the database is full; nothing was changed: make room and try again"
            ) from error
        raise NotReady(
            f"the database cannot be used now: {_reason(error)}", retry_after_s=_RETRY_AFTER_S
        ) from error
    except (DataError, UnicodeEncodeError, OverflowError) as error:
        raise InvalidRequest(
            "a name or a number is none that the database can keep: it has a NUL, a lone surrogate "
            "or more than 63 bits; remove it"
        ) from error


def _has_no_room(error: Exception) -> bool:
    cause = getattr(error, "orig", None)
    codes = getattr(cause, "sqlite_errorname", None), getattr(cause, "sqlstate", None)
    return "SQLITE_FULL" in codes or "53100" in codes


def _reason(error: Exception) -> str:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return " ".join(str(cause).split()) or type(cause).__name__


def _parsed(url: str) -> URL:
    forms = "give sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
    try:
        place = make_url(url)
        # Other programs' spelling of the same.
        if place.drivername == "postgres":
            place = place.set(drivername="postgresql")
        backend = place.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        # The text may hold a password: it is not told back.
        raise SteerwardError(f"the database's URL cannot be read; {forms}") from error
    if backend not in ("sqlite", "postgresql"):
        raise SteerwardError(f"there is no support for databases of {backend!r}; {forms}")
    if backend == "sqlite" and place.database in (None, "", ":memory:"):
        raise SteerwardError(f"a database in memory forgets its jobs; {forms}")
    return place


def _sqlite(place: URL) -> Engine:
    path = Path(place.database or "")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SteerwardError(f"{path.parent} cannot be made: {error.strerror}") from error
    engine = create_engine(
        place.set(drivername="sqlite+pysqlite"),
        connect_args={"timeout": _WAIT_S},
        hide_parameters=True,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # Python's own idea of when a transaction begins comes too late for reads before writes.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {int(_WAIT_S * 1000)}")
    _use_write_ahead_log(connection)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Switch the file to a log, unless it has one.

    SQLite does not wait here: of two processes that switch a new file at the same moment, one is
    told that it is locked.
    """
    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    reads = connection.get_execution_options().get(_READS, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _postgresql(place: URL) -> Engine:
    try:
        return create_engine(
            place.set(drivername="postgresql+psycopg"),
            # A database that was started again costs no request.
            pool_pre_ping=True,
            connect_args=_limits(place),
            hide_parameters=True,
        )
    except ImportError as error:
        raise SteerwardError(
            "the driver of PostgreSQL is not installed; pip install 'steerward[postgresql]'"
        ) from error


def _limits(place: URL) -> dict[str, Any]:
    """Return how long a connection waits for a server that has gone silent, or works on and on."""
    wait_ms = int(_WAIT_S * 1000)
    own = place.query.get("options", "")
    return {
        "connect_timeout": int(_WAIT_S),
        "keepalives": 1,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 4,
        "tcp_user_timeout": wait_ms,
        # What the URL says comes after, and so counts more.
        "options": f"-c statement_timeout={wait_ms} {own}".rstrip(),
    }


def _make_tables(connection: Connection, shown: str) -> None:
    if connection.dialect.name == "postgresql":
        # Two servers that start together would both find no table; the lock ends with the
        # transaction. SQLite has one writer anyway.
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _SCHEMA_LOCK})
    schema_version.create(connection, checkfirst=True)
    version = connection.execute(select(schema_version.c.version)).scalar_one_or_none()
    if version is not None and version > SCHEMA_VERSION:
        raise SteerwardError(
            f"{shown} has version {version} of the tables, and this Steerward knows them up to "
            f"{SCHEMA_VERSION}; upgrade Steerward, or use another database"
        )
    METADATA.create_all(connection, checkfirst=True)
    if version is not None and version < SCHEMA_VERSION:
        upgrade(connection, version=version)
    elif version is None:
        connection.execute(insert(schema_version).values(id=1, version=SCHEMA_VERSION))
