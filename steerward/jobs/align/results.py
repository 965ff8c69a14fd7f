"""What a run logged and measured, from its folder: for a job's history and for its file."""

from __future__ import annotations

import heapq
import json
import sys
from array import array
from collections.abc import Iterator
from itertools import compress
from pathlib import Path
from typing import Any

from steerward.jobs.align.history import History
from steerward.protocol.fine_tuning import IterationProgress

_LOG, _EVALUATIONS = "log.jsonl", "evaluations.jsonl"


def read_history(run: Path, *, evaluation_steps: int) -> History:
    """Return the evaluations of a run so far, with the means of what they measured.

    Args:
        run: Its folder; may be missing.
        evaluation_steps: Optimiser steps between two.
    """
    history = History(evaluation_steps)
    for row in _lines(run / _EVALUATIONS):
        history.add(IterationProgress(iteration=row["step"], rewards=_means(row["rewards"])))
    return history


def write_results(run: Path, target: Path) -> int:
    """Write every logged step and every evaluation as a line of JSON; return how many there are.

    Each has `kind` (step, evaluation) and `step`; the order is that of time. Nothing is held in
    memory but a line of each and the numbers of the steps.

    Args:
        run: Folder of the run.
        target: File to be written.
    """
    # Of what has the same step, the first stream's comes first.
    rows = heapq.merge(
        _rows(run / _LOG, kind="step"),
        _rows(run / _EVALUATIONS, kind="evaluation"),
        key=lambda row: row["step"],
    )
    count = 0
    with target.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def _rows(path: Path, *, kind: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file that count, by step."""
    for row in compress(_lines(path), _counting(path)):
        yield {"kind": kind, **row}


def _counting(path: Path) -> bytearray:
    """Return for each row whether it counts: none of an earlier step, or of its own, follows it.

    A run that is broken off goes back to its checkpoint, and does again what came after.
    """
    steps = array("q", (row["step"] for row in _lines(path)))
    counting = bytearray(len(steps))
    least = sys.maxsize
    for place in reversed(range(len(steps))):
        counting[place] = steps[place] < least
        least = min(least, steps[place])
    return counting


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    # As bytes: these lines end with a line feed, and with nothing else that Unicode calls an end.
    with path.open("rb") as file:
        for line in file:
            # Half a line is one that a kill has cut.
            if line.endswith(b"\n"):
                yield json.loads(line)


def _means(rewards: dict[str, list[float | None]]) -> dict[str, float]:
    known = {name: [v for v in values if v is not None] for name, values in rewards.items()}
    return {name: sum(values) / len(values) for name, values in known.items() if values}
