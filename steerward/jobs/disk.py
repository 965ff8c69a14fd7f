"""Files that a kill at any moment leaves whole: written beside, then moved into place."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from steerward.protocol.errors import SteerwardError, StorageFull

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def disk_errors_told(folder: Path) -> Iterator[None]:
    """Tell what a disk refuses as an error of ours.

    Raises:
        StorageFull: If it has no room.
        SteerwardError: If it refuses for another reason.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise StorageFull(
                f"the disk of {folder} is full; nothing was kept: make room and try again"
            ) from error
        raise SteerwardError(f"{folder} cannot be used: {error.strerror}") from error


def move_into_place(source: Path, target: Path) -> None:
    """Move a file, so that after a power cut it is whole in one of the two places or in both."""
    _sync(source)
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy_into_place(source, target)
        source.unlink()
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk, after the files that they stand for."""
    _sync(folder)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy_into_place(source: Path, target: Path) -> None:
    """Copy from another file system."""
    beside = target.with_name(target.name + ".tmp")
    shutil.copyfile(source, beside)
    _sync(beside)
    os.replace(beside, target)
    sync_folder(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
