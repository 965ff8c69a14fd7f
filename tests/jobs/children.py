"""Processes that the test's own has started."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def children_of(module: str) -> list[int]:
    """Return the processes that run a module and that this one has started."""
    found: list[int] = []
    for children in Path("/proc/self/task").glob("*/children"):
        # A process, or a thread of this one, may be gone between listing and reading.
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in children.read_text().split():
                if module.encode() in _command(child):
                    found.append(int(child))
    return found


def _command(process: str) -> bytes:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process}/cmdline").read_bytes()
    return b""
