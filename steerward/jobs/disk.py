"""Files that a kill at any moment leaves whole: written beside, then moved into place."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from steerward.protocol.errors import SteerwardError, StorageFull

BUILDING = ".building"
"""End of the name of what is not whole yet."""
# A full disk, a full quota, and the largest file that the system lets a process write.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_out_of_room(error: OSError) -> bool:
    """Return whether a disk refused a write for want of room."""
    return error.errno in _NO_ROOM


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
        if is_out_of_room(error):
            raise StorageFull(
                f"the disk of {folder} is full; nothing was kept: make room and try again"
            ) from error
        raise SteerwardError(f"{folder} cannot be used: {error.strerror}") from error


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let a file appear under its name whole and durable, or not at all.

    Args:
        path: Of the file; its folder is made if it is missing.
        write: Called with another name beside it, to write to.

    Raises:
        OSError: If it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    building = path.with_name(f".{path.name}.{secrets.token_hex(4)}{BUILDING}")
    try:
        write(building)
        _sync(building)
        os.replace(building, path)
    except BaseException:
        building.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def move_into_place(source: Path, target: Path) -> None:
    """Move a file, so that after a power cut it is whole in one of the two places or in both."""
    _sync(source)
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # From another file system.
        write_whole(target, lambda building: shutil.copyfile(source, building))
        source.unlink()
    _sync(target.parent)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
