"""Files of rows in the one form that `steerward.training.align.rows` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from steerward.jobs.disk import write_whole
from steerward.jobs.rows import Row, RowKind, read_rows


def write_rows(source: Path, target: Path, *, kind: RowKind) -> None:
    """Write the rows of an uploaded file: prompts as turns, responses as texts, columns beside.

    Args:
        source: Checked before, see `steerward.jobs.rows`.
        target: To be made, whole or not at all.
        kind: Of the rows.

    Raises:
        InvalidRequest: If a row is not what it was when it was uploaded.
        OSError: If the file cannot be written.
    """

    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8") as file:
            for row in read_rows(source, kind):
                file.write(json.dumps(_object(row), ensure_ascii=False) + "\n")

    write_whole(target, write)


def _object(row: Row) -> dict[str, Any]:
    pair = {} if row.pair is None else {"chosen": row.pair.chosen, "rejected": row.pair.rejected}
    return {"messages": list(row.turns), **pair, **row.columns}
