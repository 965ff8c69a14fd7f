"""A file is listed when it is whole and checked, and never otherwise."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, update

from steerward.jobs.database import writing
from steerward.jobs.files import FileStore
from steerward.jobs.store import JobStore
from steerward.jobs.tables import files
from steerward.protocol.errors import (
    DatasetRefused,
    InputTooLong,
    InvalidRequest,
    NotFound,
    SteerwardError,
    StorageFull,
)
from tests.jobs.conftest import PROMPTS, CreateJob, upload

# Kills itself as the power would go: in the middle of an upload, as it is moved, and just after.
KILLED_UPLOAD = """
import os, signal, sys
from pathlib import Path
from steerward.jobs.database import open_database
from steerward.jobs.files import FileStore

def die(*arguments):
    if sys.argv[3] == "after the move":
        move(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

store = FileStore(open_database(sys.argv[1]), Path(sys.argv[2]), max_bytes=10**6, max_rows=10)
upload = store.upload("rows.jsonl")
upload.write(b'{"prompt": "Why?"}\\n' * 10)
if sys.argv[3] == "while writing":
    die()
move, os.replace = os.replace, die
upload.finish()
"""


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_an_upload_is_kept_as_it_was_sent(file_store: FileStore, tmp_path: Path) -> None:
    with file_store.upload("../../etc/päth.jsonl") as incoming:
        for byte in PROMPTS:
            incoming.write(bytes([byte]))
        assert file_store.list(after=None, limit=10) == ([], False)
        file = incoming.finish()
    assert (file.filename, file.bytes, file.rows) == ("../../etc/päth.jsonl", len(PROMPTS), 2)
    assert (file.holds, file.purpose) == ("prompts", "fine-tune")
    assert abs(file.created_at - time.time()) < 60
    assert file_store.get(file.id) == file
    path = file_store.path(file.id)
    assert path.read_bytes() == PROMPTS
    assert contents(tmp_path / "files") == [path.name] == [f"{file.id}.jsonl"]
    file_store.verify(file.id)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no rows"),
        (b"\n  \n", "no rows"),
        (b"\x89PNG\r\n\x1a\n\0\0", "line 1: not UTF-8"),
        (PROMPTS + b'{"prompt": "cut he', "line 3: not JSON"),
        (b'{"messages": [{"role": "robot", "content": "x"}]}', r"line 1: messages\[0\].role"),
        (rb'{"prompt": "\ud800"}', "line 1: prompt: not Unicode text"),
    ],
    ids=["empty", "blank", "binary", "truncated", "wrong role", "lone surrogate"],
)
def test_a_corrupt_upload_is_refused_and_leaves_nothing(
    file_store: FileStore, tmp_path: Path, content: bytes, reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        upload(file_store, content)
    assert file_store.list(after=None, limit=10) == ([], False)
    assert contents(tmp_path / "files") == []


def test_an_upload_over_a_limit_is_refused_and_leaves_nothing(
    file_store: FileStore, tmp_path: Path
) -> None:
    incoming = file_store.upload("large.jsonl")
    incoming.write(b" " * 100_000)
    with pytest.raises(InputTooLong, match="more than 100,000 bytes.*max_file_bytes"):
        incoming.write(b"x")
    with pytest.raises(ValueError, match="closed"):
        incoming.finish()
    with pytest.raises(InputTooLong, match="line 101: more than 100 rows.*max_file_rows"):
        upload(file_store, b'{"prompt": "x"}\n' * 101)
    assert file_store.list(after=None, limit=10) == ([], False)
    assert contents(tmp_path / "files") == []


def test_an_upload_that_is_given_up_leaves_nothing(file_store: FileStore, tmp_path: Path) -> None:
    def give_up() -> None:
        with file_store.upload("rows.jsonl") as incoming:
            incoming.write(PROMPTS)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        give_up()
    assert contents(tmp_path / "files") == []


@pytest.mark.parametrize(
    "filename", ["", "x" * 256, "a\0b", "a\r\nSet-Cookie: x", "\ud800"], ids=range(5)
)
def test_a_name_that_no_file_can_have_is_refused(file_store: FileStore, filename: str) -> None:
    with pytest.raises(InvalidRequest, match="the file's name"):
        file_store.upload(filename)


def test_another_purpose_is_refused(file_store: FileStore) -> None:
    with pytest.raises(InvalidRequest, match="the only one is 'fine-tune'"):
        file_store.upload("rows.jsonl", "assistants")


@pytest.mark.parametrize("moment", ["while writing", "before the move", "after the move"])
def test_an_upload_that_is_killed_is_never_listed_and_cleared_away_later(
    moment: str,
    database_url: str,
    open_engine: Callable[[], Engine],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "files"
    command = [sys.executable, "-c", KILLED_UPLOAD, database_url, str(folder), moment]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL

    def restart() -> FileStore:
        return FileStore(open_engine(), folder, max_bytes=1000, max_rows=10)

    # It may go on in a server beside.
    assert restart().list(after=None, limit=10) == ([], False)
    assert len(contents(folder)) == 1
    for path in folder.rglob("file-*"):
        os.utime(path, (0, 0))
    with writing(open_engine()) as connection:
        connection.execute(update(files).values(created_at=files.c.created_at - 4000))
    restart()
    assert contents(folder) == []
    with writing(open_engine()) as connection:
        assert connection.execute(select(files)).all() == []


def test_a_full_disk_is_told_as_such(
    file_store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    incoming = file_store.upload("rows.jsonl")
    incoming.write(PROMPTS)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(StorageFull, match="make room"):
            incoming.finish()
    assert file_store.list(after=None, limit=10) == ([], False)
    assert contents(tmp_path / "files") == []


def test_a_folder_that_cannot_be_used_is_named(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SteerwardError, match="file/files cannot be used: Not a directory"):
        FileStore(engine, tmp_path / "file" / "files", max_bytes=1, max_rows=1)


def test_a_result_is_moved_in(file_store: FileStore, tmp_path: Path) -> None:
    samples = tmp_path / "samples.jsonl"
    samples.write_bytes(b'{"completion": "x"}\n')
    file = file_store.add_result(samples, filename="job-samples.jsonl", rows=1)
    assert (file.purpose, file.holds, file.rows) == ("fine-tune-results", "samples", 1)
    assert file.bytes == file_store.path(file.id).stat().st_size == 20
    assert not samples.exists()
    file_store.verify(file.id)


def test_a_result_on_another_file_system_is_moved_in(
    file_store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = tmp_path / "samples.jsonl"
    samples.write_bytes(b"{}\n")
    move = os.replace

    def within_one(source: Path, target: Path) -> None:
        if source == samples:
            raise OSError(18, "Invalid cross-device link")
        move(source, target)

    monkeypatch.setattr(os, "replace", within_one)
    file = file_store.add_result(samples, filename="samples.jsonl", rows=1)
    assert file_store.path(file.id).read_bytes() == b"{}\n"
    assert contents(tmp_path / "files") == [f"{file.id}.jsonl"]
    assert not samples.exists()


def test_files_are_listed_in_pages_by_purpose(file_store: FileStore, tmp_path: Path) -> None:
    made = [upload(file_store, PROMPTS) for _ in range(3)]
    samples = tmp_path / "samples.jsonl"
    samples.write_bytes(b"{}\n")
    result = file_store.add_result(samples, filename="samples.jsonl", rows=1).id

    def ids(**options: object) -> tuple[list[str], bool]:
        found, has_more = file_store.list(**{"after": None, "limit": 2, **options})
        return [file.id for file in found], has_more

    assert ids() == ([result, made[2]], True)
    assert ids(after=made[2]) == ([made[1], made[0]], False)
    assert ids(newest_first=False) == ([made[0], made[1]], True)
    assert ids(newest_first=False, after=made[1]) == ([made[2], result], False)
    assert ids(purpose="fine-tune-results") == ([result], False)
    assert ids(purpose="fine-tune") == ([made[2], made[1]], True)


def test_a_deleted_file_is_gone(file_store: FileStore, training_file: str, tmp_path: Path) -> None:
    file_store.delete(training_file)
    assert contents(tmp_path / "files") == []
    ways = (file_store.get, file_store.path, file_store.verify, file_store.delete)
    for ask in ways:
        for file_id in (training_file, "../files", "file-\0", ""):
            with pytest.raises(NotFound, match="there is no file"):
                ask(file_id)


@pytest.mark.parametrize("field", ["training_file", "validation_file", "sft_file"])
def test_a_file_is_not_deleted_while_a_job_needs_it(
    store: JobStore, file_store: FileStore, create_job: CreateJob, field: str
) -> None:
    needed = upload(file_store, PROMPTS)
    if field == "sft_file":
        job = create_job(rsf={"sft_file": needed, "sft_share": 0.5})
    else:
        job = create_job(**{field: needed})
    store.request(job.id, "pause")
    with pytest.raises(InvalidRequest, match=f"needed by {job.id}, which is paused"):
        file_store.delete(needed)
    file_store.verify(needed)
    store.request(job.id, "cancel")
    file_store.delete(needed)


def test_no_job_begins_with_a_file_that_is_being_deleted(
    file_store: FileStore, create_job: CreateJob
) -> None:
    for _ in range(10):
        file_id = upload(file_store, PROMPTS)
        # Bound now: a thread must not see the next round's.
        delete = partial(file_store.delete, file_id)
        create = partial(create_job, training_file=file_id)
        assert num_that_went_well(delete, create) == 1


def num_that_went_well(*acts: Callable[[], object]) -> int:
    """Act on as many threads at the same moment, and count who was not refused."""
    start = threading.Barrier(len(acts))

    def run(act: Callable[[], object]) -> bool:
        start.wait(30)
        try:
            act()
        except (InvalidRequest, NotFound):
            return False
        return True

    with ThreadPoolExecutor(len(acts)) as threads:
        return sum(threads.map(run, acts))


def test_content_that_is_gone_or_changed_is_told(
    file_store: FileStore, training_file: str, tmp_path: Path
) -> None:
    path = file_store.path(training_file)
    path.write_bytes(PROMPTS.replace(b"blue", b"grey"))
    digest = hashlib.sha256(PROMPTS).hexdigest()
    with pytest.raises(DatasetRefused, match=f"not what was uploaded.*was {digest}"):
        file_store.verify(training_file)
    path.unlink()
    with pytest.raises(NotFound, match=f"its content is not in {tmp_path}/files"):
        file_store.path(training_file)
    file_store.delete(training_file)
