"""One run of a job at a time, whatever the database believes.

The lease says who may run a job. A server that was frozen for longer than its lease does not know
yet that it has lost it, and may be writing: the next one waits until it has let go of the folder.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

LOCK_FILE = ".lock"
_POLL_S = 0.25


@asynccontextmanager
async def sole_use(folder: Path, *, on_wait: Callable[[], None]) -> AsyncIterator[int]:
    """Hold a job's folder; the system lets go of it when this process ends, however it does.

    Gives the descriptor of the lock: a process that inherits it holds the folder, too.

    Args:
        folder: Of the job; must be there.
        on_wait: Called once if another process holds it.

    Raises:
        OSError: If the folder cannot be written.
    """
    descriptor = _opened(folder)
    try:
        has_told = False
        while not _is_locked(descriptor):
            if not has_told:
                has_told = True
                on_wait()
            # Nothing tells of a lock that becomes free without a thread that waits for it.
            await asyncio.sleep(_POLL_S)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def sole_use_now(folder: Path) -> Iterator[bool]:
    """Hold a job's folder if nobody else does; give whether it is held.

    Args:
        folder: Of the job; must be there.

    Raises:
        OSError: If the folder cannot be written.
    """
    descriptor = _opened(folder)
    try:
        yield _is_locked(descriptor)
    finally:
        os.close(descriptor)


def _opened(folder: Path) -> int:
    return os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _is_locked(descriptor: int) -> bool:
    """Return whether the lock is held now; a file system without locks is taken for free."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
