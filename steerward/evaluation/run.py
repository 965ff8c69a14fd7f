"""An evaluation from files to report: read all rows, score those that have no scores, measure."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from steerward.evaluation.kept_scores import KeptScores, RowResult
from steerward.evaluation.outcome import Benchmark
from steerward.evaluation.report import Failure, Report
from steerward.evaluation.rows import DataFile, PlacedRow, ScoredRow, read_rows
from steerward.evaluation.scorer import Scorer, Steering
from steerward.protocol.errors import (
    EngineFailure,
    InputTooLong,
    InvalidDirection,
    InvalidRequest,
    NonFiniteScore,
    SteerwardError,
    UnknownObjective,
)

# Faults of the row itself. All else would fail in every row, or is the machine's.
_ROW_ERRORS = (InvalidRequest, InputTooLong, NonFiniteScore)
_ERRORS_OF_THE_RUN = (UnknownObjective, InvalidDirection)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What is to be evaluated, on what."""

    benchmark: Benchmark
    files: tuple[Path, ...]
    steering: Steering
    parallel: int
    """Rows that are on their way at once."""
    out: Path | None = None
    """Report to write; scores are kept beside it."""
    overwrite: bool = False


async def evaluate(evaluation: Evaluation, scorer: AbstractAsyncContextManager[Scorer]) -> Report:
    """Return the report, and write it where that is asked for.

    Args:
        evaluation: What to do.
        scorer: Entered once all rows have been read.

    Raises:
        SteerwardError: If the files do not fit, the scores beside the report belong to another
            run, or the machine is at fault; scores that were kept stay.
    """
    _check_out(evaluation)
    rows, files = read_rows(evaluation.files, evaluation.benchmark.read_row)
    async with scorer as ready:
        evaluation.steering.check(ready.card)
        results = await _results(evaluation, ready, rows, files)
        report = _report(evaluation, ready, rows, files, results)
    if evaluation.out is not None:
        _write(evaluation.out, report)
    return report


def scores_path(out: Path) -> Path:
    """Return the file that keeps the scores of a report."""
    return out.with_name(out.name + ".scores.jsonl")


def _check_out(evaluation: Evaluation) -> None:
    """Refuse a report that has nowhere to go, or would destroy or become data."""
    out = evaluation.out
    if out is None:
        return
    if not out.parent.is_dir():
        raise InvalidRequest(f"there is no folder {out.parent} to write {out.name} into")
    for path in evaluation.files:
        if path.is_dir() and path.samefile(out.parent):
            raise InvalidRequest(
                f"{out} would lie in the folder of the data and be read as such; choose another"
            )
        for written in (out, scores_path(out)):
            if path.exists() and written.exists() and written.samefile(path):
                raise InvalidRequest(f"writing {written} would replace the data; choose another")
    if out.exists() and not scores_path(out).exists() and not evaluation.overwrite:
        raise InvalidRequest(
            f"{out} exists without the scores of a run beside it; choose another --out, or replace "
            "it with --overwrite"
        )


async def _results(
    evaluation: Evaluation,
    scorer: Scorer,
    rows: Sequence[PlacedRow],
    files: Sequence[DataFile],
) -> dict[int, RowResult]:
    """Return what became of each row, by its number among all."""
    if evaluation.out is None:
        return await _score_rows(evaluation, scorer, rows, {}, kept=None)
    kept = KeptScores(
        scores_path(evaluation.out),
        state=_state(evaluation, scorer, files),
        overwrite=evaluation.overwrite,
    )
    try:
        return await _score_rows(evaluation, scorer, rows, kept.open(), kept=kept)
    finally:
        kept.close()


def _state(evaluation: Evaluation, scorer: Scorer, files: Sequence[DataFile]) -> Mapping[str, Any]:
    """Return all that scores depend on."""
    card, steering = scorer.card, evaluation.steering
    return {
        "benchmark": evaluation.benchmark.name,
        "files": [file.sha256 for file in files],
        "model": card.id,
        "weight_version": card.weight_version,
        "dtype": card.dtype,
        "device": card.device,
        "max_input_tokens": card.max_input_tokens,
        "weights": None if steering.weights is None else dict(steering.weights),
        "direction": None if steering.direction is None else dict(steering.direction),
    }


async def _score_rows(
    evaluation: Evaluation,
    scorer: Scorer,
    rows: Sequence[PlacedRow],
    done: Mapping[int, RowResult],
    *,
    kept: KeptScores | None,
) -> dict[int, RowResult]:
    results = dict(done)
    left = iter([index for index in range(len(rows)) if index not in done])
    with tqdm(
        total=len(rows), initial=len(done), unit="row", desc=evaluation.benchmark.title
    ) as bar:

        async def work(indices: Iterator[int]) -> None:
            for index in indices:
                result = await _score_row(scorer, rows[index], evaluation.steering)
                results[index] = result
                if kept is not None:
                    kept.write(index, rows[index], result)
                bar.update()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(evaluation.parallel, len(rows))):
                    group.create_task(work(left))
        except ExceptionGroup as failures:
            # One fault of the machine meets many rows: tell the first.
            raise failures.exceptions[0] from None
    return results


async def _score_row(scorer: Scorer, placed: PlacedRow, steering: Steering) -> RowResult:
    try:
        try:
            response = await scorer.score(placed.row, steering=steering)
        except NonFiniteScore:
            raise
        except EngineFailure:
            # Perhaps another row of its batch was at fault: try once more.
            response = await scorer.score(placed.row, steering=steering)
    except _ERRORS_OF_THE_RUN:
        raise
    except _ROW_ERRORS as error:
        return RowResult.of_error(error)
    except SteerwardError as error:
        raise type(error)(
            f"{placed.place}: {error.message}. Scores that are kept beside --out stay; run the "
            "same command again to go on",
            param=error.param,
        ) from error
    if response.weight_version != scorer.card.weight_version:
        raise SteerwardError(
            f"{placed.place}: scored by weights {response.weight_version}, the rows before by "
            f"{scorer.card.weight_version}; the model was changed: start over with --overwrite"
        )
    return RowResult(steering.values(response))


def _report(
    evaluation: Evaluation,
    scorer: Scorer,
    rows: Sequence[PlacedRow],
    files: tuple[DataFile, ...],
    results: Mapping[int, RowResult],
) -> Report:
    scored = [ScoredRow(placed.row, results[index].scores) for index, placed in enumerate(rows)]
    failures = [
        Failure(
            file=placed.file,
            row=placed.number,
            id=placed.row.id,
            subset=placed.row.subset,
            code=results[index].code,
            message=results[index].message,
        )
        for index, placed in enumerate(rows)
        if results[index].scores is None
    ]
    return Report(
        benchmark=evaluation.benchmark,
        outcome=evaluation.benchmark.measure(scored),
        card=scorer.card,
        address=scorer.address,
        steering=evaluation.steering,
        files=files,
        failures=tuple(failures),
    )


def _write(out: Path, report: Report) -> None:
    """Write the report in one step."""
    temporary = out.with_name(out.name + ".tmp")
    temporary.write_text(json.dumps(report.as_json(), indent=2, allow_nan=False) + "\n")
    os.replace(temporary, out)
