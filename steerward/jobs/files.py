"""Uploaded files and files that jobs wrote: rows in the database, content in a folder.

A file is listed when its content is checked and safely on the disk, not before; what a kill left
in between is removed later. On the disk a file is called by its id: what a client calls it is
only told back.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, delete, insert, or_, select, update

from steerward.jobs.database import DatabaseTime, reading, writing
from steerward.jobs.disk import disk_errors_told, file_digest, move_into_place
from steerward.jobs.paging import page
from steerward.jobs.records import check_id, missing, new_id
from steerward.jobs.tables import files, jobs
from steerward.jobs.upload import Upload
from steerward.protocol.errors import DatasetRefused, InvalidRequest, NotFound
from steerward.protocol.files import FileContents, FileObject, FilePurpose
from steerward.protocol.fine_tuning import FINAL_STATUSES

# Of what a killed upload left, so that none is removed that goes on beside.
_LEAST_AGE_S = 3600.0
_MOST_NAME = 255

# Named here: inside the class `list` is its method.
FilePage = tuple[list[FileObject], bool]


class FileStore:
    """The files of a database and a folder; its methods may be called from any thread.

    Args:
        engine: From `open_database`.
        folder: Of the content; made if it is missing. Servers that share the database share it.
        max_bytes: Largest upload.
        max_rows: Most rows of an upload.

    Raises:
        SteerwardError: If the folder cannot be used.
    """

    def __init__(self, engine: Engine, folder: Path, *, max_bytes: int, max_rows: int) -> None:
        self._engine = engine
        self._folder = folder
        self._uploads = folder / "uploads"
        self._max_bytes = max_bytes
        self._max_rows = max_rows
        with disk_errors_told(folder):
            self._uploads.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()

    def upload(self, filename: str, purpose: str = "fine-tune") -> Upload:
        """Return a file to be written; as a context manager it leaves nothing if not finished.

        Raises:
            InvalidRequest: If the name or the purpose is none that a file can have.
            SteerwardError: If the folder cannot be written to.
        """
        if purpose != "fine-tune":
            raise InvalidRequest("purpose: the only one is 'fine-tune'", param="purpose")
        _check_name(filename)
        file_id = new_id("file")
        part = self._uploads / f"{file_id}.part"
        keep = partial(self._keep, id=file_id, filename=filename, purpose="fine-tune")
        return Upload(part, keep, max_bytes=self._max_bytes, max_rows=self._max_rows)

    def add_result(
        self, path: Path, *, filename: str, rows: int, holds: FileContents = "samples"
    ) -> FileObject:
        """Move what a job wrote in, as a file of its own.

        Raises:
            SteerwardError: If the disk refuses.
        """
        with disk_errors_told(self._folder):
            values = {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        return self._keep(
            path,
            id=new_id("file"),
            filename=filename,
            purpose="fine-tune-results",
            holds=holds,
            rows=rows,
            **values,
        )

    def get(self, file_id: str) -> FileObject:
        """Return what is known of a file.

        Raises:
            NotFound: If there is none of this id.
        """
        with reading(self._engine) as connection:
            return _file(_found(connection, file_id))

    def list(
        self,
        *,
        purpose: FilePurpose | None = None,
        after: str | None,
        limit: int,
        newest_first: bool = True,
    ) -> FilePage:
        """Return a page of files, and whether there are more.

        Args:
            purpose: Of the files; None: any.
            after: Id of the last file of the page before.
            limit: Most files.
            newest_first: Whether the page begins with the newest.

        Raises:
            NotFound: If there is no file `after`.
        """
        conditions: list[ColumnElement[bool]] = [files.c.is_kept.is_(True)]
        if purpose is not None:
            conditions.append(files.c.purpose == purpose)
        with reading(self._engine) as connection:
            position = None if after is None else _found(connection, after).sequence
            rows, has_more = page(
                connection,
                files,
                *conditions,
                order="sequence",
                position=position,
                limit=limit,
                newest_first=newest_first,
            )
        return [_file(row) for row in rows], has_more

    def delete(self, file_id: str) -> None:
        """Delete a file.

        Raises:
            NotFound: If there is none of this id.
            InvalidRequest: If a job still needs it; the job is named.
        """
        with writing(self._engine) as connection:
            _found(connection, file_id, locks=True)
            _check_unused(connection, file_id)
            connection.execute(update(files).where(files.c.id == file_id).values(is_kept=False))
        self._remove(file_id)

    def path(self, file_id: str) -> Path:
        """Return where the content of a file is.

        Raises:
            NotFound: If there is no such file, or its content is gone.
        """
        self.get(file_id)
        path = self._path(file_id)
        if not path.is_file():
            raise NotFound(
                f"file {file_id} is in the database, and its content is not in {self._folder}; "
                "start the server with the state folder that goes with this database"
            )
        return path

    def verify(self, file_id: str) -> None:
        """Read a file whole, and compare it with what was uploaded.

        Raises:
            NotFound: If there is no such file, or its content is gone.
            DatasetRefused: If it is not what it was.
        """
        path = self.path(file_id)
        with reading(self._engine) as connection:
            sha256 = _found(connection, file_id).sha256
        with disk_errors_told(self._folder):
            actual = file_digest(path)
        if actual != sha256:
            raise DatasetRefused(
                f"file {file_id} is not what was uploaded: its SHA-256 is {actual}, and was "
                f"{sha256}; upload it again"
            )

    def _keep(self, path: Path, **values: Any) -> FileObject:
        """Move a whole file in and list it.

        The row comes first and counts only in the end: whatever a kill leaves has a row that
        says so.

        Args:
            path: Of the file.
            values: Of its row.

        Raises:
            SteerwardError: If the disk refuses; nothing is left.
        """
        file_id = values["id"]
        with writing(self._engine) as connection:
            connection.execute(
                insert(files).values(created_at=DatabaseTime(), is_kept=False, **values)
            )
        try:
            with disk_errors_told(self._folder):
                move_into_place(path, self._path(file_id))
            with writing(self._engine) as connection:
                connection.execute(update(files).where(files.c.id == file_id).values(is_kept=True))
        except BaseException:
            self._remove(file_id)
            raise
        return self.get(file_id)

    def _path(self, file_id: str) -> Path:
        return self._folder / f"{file_id}.jsonl"

    def _remove(self, file_id: str) -> None:
        """Remove the content of a file that does not count, and with it the row that tells so."""
        doubtful = files.c.id == file_id, files.c.is_kept.is_(False)
        with writing(self._engine) as connection, disk_errors_told(self._folder):
            # It may count after all, where the database was lost from sight as it said so.
            if connection.execute(delete(files).where(*doubtful)).rowcount:
                self._path(file_id).unlink(missing_ok=True)

    def _remove_leftovers(self) -> None:
        """Remove what killed uploads and deletions left; another server's may go on beside."""
        for path in self._uploads.glob("file-*.part"):
            try:
                if time.time() - path.stat().st_mtime > _LEAST_AGE_S:
                    path.unlink()
            except FileNotFoundError:
                continue  # Just finished, or removed by another server.
        left = select(files.c.id).where(
            files.c.is_kept.is_(False), files.c.created_at < DatabaseTime() - _LEAST_AGE_S
        )
        with reading(self._engine) as connection:
            file_ids = [*connection.execute(left).scalars()]
        for file_id in file_ids:
            self._remove(file_id)


def _found(connection: Connection, file_id: str, *, locks: bool = False) -> Row[Any]:
    check_id(file_id, prefix="file", what="file")
    query = select(files).where(files.c.id == file_id, files.c.is_kept.is_(True))
    row = connection.execute(query.with_for_update() if locks else query).one_or_none()
    if row is None:
        raise missing(file_id, what="file")
    return row


def _check_unused(connection: Connection, file_id: str) -> None:
    uses = or_(
        jobs.c.training_file == file_id,
        jobs.c.validation_file == file_id,
        jobs.c.sft_file == file_id,
    )
    query = select(jobs.c.id, jobs.c.status).where(uses, jobs.c.status.not_in(FINAL_STATUSES))
    job = connection.execute(query.order_by(jobs.c.sequence).limit(1)).one_or_none()
    if job is not None:
        raise InvalidRequest(
            f"file {file_id} is needed by {job.id}, which is {job.status}; wait for its end or "
            "cancel it first"
        )


def _check_name(filename: str) -> None:
    wrong = None
    if not filename or len(filename) > _MOST_NAME:
        wrong = f"has {len(filename)} characters; give 1 to {_MOST_NAME}"
    elif any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in filename):
        wrong = "has control characters; leave them out"
    elif any(0xD800 <= ord(character) < 0xE000 for character in filename):
        wrong = "is not Unicode text"
    if wrong is not None:
        raise InvalidRequest(f"the file's name {wrong}", param="file")


def _file(row: Row[Any]) -> FileObject:
    return FileObject(
        id=row.id,
        bytes=row.bytes,
        created_at=int(row.created_at),
        filename=row.filename,
        purpose=row.purpose,
        rows=row.rows,
        holds=row.holds,
    )
