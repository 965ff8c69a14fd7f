"""Folders that a kill of the process or of the machine leaves whole, or leaves out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from steerward.protocol.errors import SteerwardError

_CHECKPOINTS = "checkpoint-*"
# Holds what the checkpoint belongs to; written when all else in the folder is on the disk.
_COMPLETE = "complete"


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Give a folder to fill, which takes its name when the block ends without an error.

    Args:
        out: The name; must not be there.

    Raises:
        SteerwardError: If it is.
    """
    check_free(out)
    building = out.with_name(f".{out.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        yield building
        make_durable(building)
        building.rename(out)
    except BaseException:
        # Weights that nobody will read would fill the disk further.
        shutil.rmtree(building, ignore_errors=True)
        raise
    _sync(out.parent)


def check_free(out: Path) -> None:
    """Refuse a folder that is there already.

    Raises:
        SteerwardError: If it is.
    """
    if out.exists():
        raise SteerwardError(
            f"{out} is there, and holds no finished fine-tuning; move it away, or give another "
            "folder"
        )


def make_durable(folder: Path) -> None:
    """Wait until everything in a folder is on the disk."""
    for path in [folder, *folder.rglob("*")]:
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def complete_checkpoint(runs: Path, *, identity: str) -> Path | None:
    """Return the last checkpoint that was written to its end; others are deleted.

    Args:
        runs: Folder of the checkpoints.
        identity: Of the work; a checkpoint of other work is not taken up.
    """
    found: Path | None = None
    for path in sorted(runs.glob(_CHECKPOINTS), key=_step, reverse=True):
        mark = path / _COMPLETE
        if found is None and mark.is_file() and mark.read_text() == identity:
            found = path
        else:
            shutil.rmtree(path)
    return found


def mark_complete(checkpoint: Path, *, identity: str) -> None:
    """Let training go on from a checkpoint, and delete those before it."""
    make_durable(checkpoint)
    (checkpoint / _COMPLETE).write_text(identity)
    make_durable(checkpoint)
    _sync(checkpoint.parent)
    for path in checkpoint.parent.glob(_CHECKPOINTS):
        if _step(path) < _step(checkpoint):
            shutil.rmtree(path)


def _step(path: Path) -> int:
    return int(path.name.rsplit("-", 1)[1])
