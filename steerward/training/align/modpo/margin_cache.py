"""A file of margins that were computed before: a sweep over weights pays for each of them once.

One line of JSON a margin, appended as it becomes known. A line that a kill cut off is left out,
and what it said is computed again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from steerward.protocol.errors import DatasetRefused


def margin_key(
    source: str, *, prompt: object, response: object, columns: Mapping[str, object]
) -> str:
    """Return what a margin is kept under: a digest of its text and of what computed it.

    Args:
        source: Identity of what computed it; another one gives other numbers.
        prompt: Text, or messages.
        response: Text, or messages.
        columns: Of the row, those that the source reads too.
    """
    told = json.dumps([source, prompt, response, dict(columns)], sort_keys=True, default=repr)
    return hashlib.sha256(told.encode()).hexdigest()


class MarginCache:
    """Margins by key, in memory and in a file if there is one.

    Args:
        path: JSON lines; made if it is not there. None keeps margins in memory alone.

    Raises:
        DatasetRefused: If the file holds something else.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[str, float] = {}
        if path is not None and path.is_file():
            self._read(path)

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, key: str) -> bool:
        return key in self._known

    def __getitem__(self, key: str) -> float:
        return self._known[key]

    def add(self, found: Sequence[tuple[str, float]]) -> None:
        """Keep margins, on the disk when this returns."""
        new = [(key, value) for key, value in found if key not in self._known]
        self._known.update(new)
        if self._path is not None and new:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(_line(key, value) for key, value in new)

    def _read(self, path: Path) -> None:
        lines = path.read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            # Whoever wrote it was killed: what is appended must not join it.
            cut = lines.pop()
            with path.open("r+b") as file:
                file.truncate(path.stat().st_size - len(cut))
        for number, line in enumerate(lines, 1):
            self._known.update([_entry(line, f"{path}, line {number}")])


def _line(key: str, value: float) -> str:
    return json.dumps({"key": key, "margin": value}) + "\n"


def _entry(line: bytes, place: str) -> tuple[str, float]:
    try:
        row: Any = json.loads(line)
    except ValueError:
        row = None
    fields = cast("dict[str, object]", row) if isinstance(row, dict) else {}
    key, value = fields.get("key"), fields.get("margin")
    if not isinstance(key, str) or not isinstance(value, float) or not math.isfinite(value):
        raise DatasetRefused(
            f"{place}: no margin with its key; this file is no cache of margins, give another"
        )
    return key, value
