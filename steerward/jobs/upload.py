"""A file on its way in: written piece by piece, checked whole, kept or not there at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from steerward.jobs.disk import disk_errors_told
from steerward.jobs.rows import check_rows
from steerward.protocol.errors import InputTooLong
from steerward.protocol.files import FileObject


class Upload:
    """A file on its way in, written by one thread at a time.

    Args:
        part: Where it is until it is kept.
        keep: Called with that, and with what was found in it.
        max_bytes: Largest file.
        max_rows: Most rows.

    Raises:
        SteerwardError: If the disk refuses.
    """

    def __init__(
        self, part: Path, keep: Callable[..., FileObject], *, max_bytes: int, max_rows: int
    ) -> None:
        self._part = part
        self._keep = keep
        self._max_bytes = max_bytes
        self._max_rows = max_rows
        self._num_bytes = 0
        self._digest = hashlib.sha256()
        with disk_errors_told(part.parent):
            self._file = part.open("xb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abort()

    def write(self, piece: bytes) -> None:
        """Take the next piece.

        Raises:
            InputTooLong: If the file becomes larger than may be; nothing of it is left.
            SteerwardError: If the disk refuses; the same.
            ValueError: If the upload has ended.
        """
        self._num_bytes += len(piece)
        if self._num_bytes > self._max_bytes:
            self.abort()
            limit = self._max_bytes
            raise InputTooLong(
                f"the file has more than {limit:,} bytes; split it, or start the server with "
                f"max_file_bytes above {limit}",
                param="file",
            )
        self._digest.update(piece)
        try:
            with disk_errors_told(self._part.parent):
                self._file.write(piece)
        except BaseException:
            self.abort()
            raise

    def finish(self) -> FileObject:
        """Check all rows and keep the file.

        Raises:
            InvalidRequest: If a row is wrong or there is none; nothing is left of the file.
            InputTooLong: If there are too many rows, or one is too long; the same.
            SteerwardError: If the disk refuses; the same.
            ValueError: If the upload has ended.
        """
        try:
            with disk_errors_told(self._part.parent):
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
                found = check_rows(self._part, max_rows=self._max_rows)
            return self._keep(
                self._part,
                holds=found.holds,
                rows=found.rows,
                bytes=self._num_bytes,
                sha256=self._digest.hexdigest(),
            )
        finally:
            self.abort()

    def abort(self) -> None:
        """Leave nothing of a file that was not finished; does nothing to one that was."""
        # What it cannot write any more is not wanted.
        with suppress(OSError):
            self._file.close()
        self._part.unlink(missing_ok=True)
