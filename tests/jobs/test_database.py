"""A database is opened, or refused with the reason; its clock is the one that counts."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, inspect, text, update

from steerward.jobs.database import database_time, open_database, reading, writing
from steerward.jobs.tables import METADATA, schema_version
from steerward.protocol.errors import NotReady, SteerwardError, StorageFull

OpenEngine = Callable[[], Engine]


def test_opening_makes_the_tables_and_opening_again_keeps_them(open_engine: OpenEngine) -> None:
    for _ in range(2):
        assert set(inspect(open_engine()).get_table_names()) == set(METADATA.tables)


def test_tables_of_a_later_version_are_refused_and_left_alone(open_engine: OpenEngine) -> None:
    with writing(open_engine()) as connection:
        connection.execute(update(schema_version).values(version=7))
    with pytest.raises(SteerwardError, match=r"has version 7 .* up to 2; upgrade Steerward"):
        open_engine()


def test_the_clock_is_in_seconds_since_1970_and_goes_on(engine: Engine) -> None:
    with reading(engine) as connection:
        first = database_time(connection)
        time.sleep(0.01)
        assert 0.005 < database_time(connection) - first < 5
    assert abs(first - time.time()) < 5


def test_a_transaction_that_fails_leaves_no_trace(engine: Engine) -> None:
    def fail() -> None:
        with writing(engine) as connection:
            connection.execute(update(schema_version).values(version=0))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with reading(engine) as connection:
        assert connection.execute(schema_version.select()).one().version == 2


def test_postgresql_gives_a_statement_up_in_time_unless_the_url_says_else(
    postgresql_url: str,
) -> None:
    own = (
        f"{postgresql_url}{'&' if '?' in postgresql_url else '?'}options=-c%20statement_timeout=7s"
    )
    for url, expected in ((postgresql_url, "30s"), (own, "7s")):
        engine = open_database(url)
        with reading(engine) as connection:
            assert connection.execute(text("SHOW statement_timeout")).scalar_one() == expected
        engine.dispose()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(SteerwardError, match="in memory forgets its jobs; give sqlite:///FILE"):
        open_database(url)


@pytest.mark.parametrize("url", ["mysql://me:secret@host/name", "secret", "nosuch://secret"])
def test_other_databases_are_refused_without_their_password(url: str) -> None:
    with pytest.raises(SteerwardError, match="give sqlite:///FILE or postgresql://") as caught:
        open_database(url)
    assert "secret" not in caught.value.message


def test_a_server_that_is_not_there_is_named_without_its_password(tmp_path: Path) -> None:
    url = f"postgres://me:secret@/name?host={tmp_path}"
    with pytest.raises(SteerwardError, match=r"postgresql.*cannot be opened") as caught:
        open_database(url)
    assert "secret" not in caught.value.message


def test_a_missing_driver_is_named_with_its_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(SteerwardError, match=r"pip install 'steerward\[postgresql\]'"):
        open_database("postgresql://host/name")


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("shopping\n" * 1000)
    with pytest.raises(SteerwardError, match="notes.txt cannot be opened.*not a database"):
        open_database(f"sqlite:///{path}")
    assert path.read_text() == "shopping\n" * 1000


def test_sqlite_keeps_what_is_committed_and_its_keys(sqlite_url: str) -> None:
    engine = open_database(sqlite_url)
    pragmas = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30_000}
    with reading(engine) as connection:
        for name, expected in pragmas.items():
            assert connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() == expected
    engine.dispose()


def test_a_full_disk_is_told_as_such_and_changes_nothing(sqlite_url: str) -> None:
    engine = open_database(sqlite_url)
    with engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    def fill() -> None:
        with writing(engine) as connection:
            connection.exec_driver_sql("CREATE TABLE more (text TEXT)")
            connection.exec_driver_sql("INSERT INTO more VALUES (zeroblob(100000))")

    with pytest.raises(StorageFull, match="make room"):
        fill()
    assert "more" not in inspect(engine).get_table_names()
    engine.dispose()


def test_a_database_that_does_not_answer_may_answer_later(tmp_path: Path, sqlite_url: str) -> None:
    engine = open_database(sqlite_url)
    engine.dispose()
    (tmp_path / "state").rename(tmp_path / "away")
    with pytest.raises(NotReady, match="cannot be used now") as caught, reading(engine) as one:
        database_time(one)
    assert caught.value.retry_after_s
    (tmp_path / "away").rename(tmp_path / "state")
    with reading(engine) as connection:
        assert database_time(connection) > 0
    engine.dispose()


def test_servers_that_start_together_make_the_tables_once(database_url: str) -> None:
    start, opened = threading.Barrier(4), []

    def serve() -> None:
        start.wait(30)
        engine = open_database(database_url)
        engine.dispose()
        opened.append(engine)

    servers = [threading.Thread(target=serve) for _ in range(4)]
    for server in servers:
        server.start()
    for server in servers:
        server.join(60)
    assert len(opened) == 4
