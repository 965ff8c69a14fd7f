"""How often a job was begun without coming any further: one that ends its server is paused.

Only ends without an end count: a kill, a crash, a power cut. What a job has done is seen by the
files in its folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from steerward.jobs.disk import write_whole
from steerward.protocol.errors import NotReady

MOST_ATTEMPTS = 3
_FILE = "attempts.json"


@contextmanager
def counted_attempt(folder: Path) -> Iterator[None]:
    """Count a run of a job until it ends by itself, be it with an error.

    Args:
        folder: Of the job; must be there.

    Raises:
        NotReady: If too many runs ended without an end and without a step done; the next time
            counts anew.
        OSError: If the folder cannot be written.
    """
    path = folder / _FILE
    done = _done(folder)
    count = _count(path, done) + 1
    if count > MOST_ATTEMPTS:
        path.unlink()
        raise NotReady(
            f"the server ended {MOST_ATTEMPTS} times while it ran this job, each time before "
            "another step was done; the server's log or the system's may say why (memory?); "
            "nothing that was done is lost"
        )
    text = json.dumps({"count": count, "done": done})
    write_whole(path, lambda building: building.write_text(text))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _count(path: Path, done: str) -> int:
    """Return the runs that were begun with the same done as now."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return 0
    return found["count"] if found["done"] == done else 0


def _done(folder: Path) -> str:
    """Return an identity of what is there; what is being built does not count."""
    names = sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.name != _FILE and not any(p.startswith(".") for p in path.relative_to(folder).parts)
    )
    return hashlib.sha256("\n".join(names).encode()).hexdigest()
