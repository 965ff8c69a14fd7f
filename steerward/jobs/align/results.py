"""What a run logged and measured, from its folder: for a job's history and for its file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from steerward.protocol.fine_tuning import IterationProgress

_LOG, _EVALUATIONS = "log.jsonl", "evaluations.jsonl"


def read_history(run: Path) -> list[IterationProgress]:
    """Return the evaluations of a run so far, with the means of what they measured.

    Args:
        run: Its folder; may be missing.
    """
    return [
        IterationProgress(iteration=row["step"], rewards=_means(row["rewards"]))
        for row in _rows(run / _EVALUATIONS)
    ]


def write_results(run: Path, target: Path) -> int:
    """Write every logged step and every evaluation as a line of JSON; return how many there are.

    Each has `kind` (step, evaluation) and `step`; the order is that of time.

    Args:
        run: Folder of the run.
        target: File to be written.
    """
    rows = [{"kind": "step", **row} for row in _rows(run / _LOG)]
    rows += [{"kind": "evaluation", **row} for row in _rows(run / _EVALUATIONS)]
    rows.sort(key=lambda row: (row["step"], row["kind"] == "evaluation"))
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    target.write_text(lines, encoding="utf-8")
    return len(rows)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file, of each step the last one: a run goes back to its checkpoint."""
    found: dict[int, dict[str, Any]] = {}
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            # Half a line is one that a kill has cut.
            if line.endswith("\n"):
                row = cast("dict[str, Any]", json.loads(line))
                found[row["step"]] = row
    yield from found.values()


def _means(rewards: dict[str, list[float | None]]) -> dict[str, float]:
    known = {name: [v for v in values if v is not None] for name, values in rewards.items()}
    return {name: sum(values) / len(values) for name, values in known.items() if values}
