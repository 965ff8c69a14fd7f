"""Score a JSON-lines file: in order, resumable, one bad row never stops the rest.

Rows are written in input order as soon as they and all before them are done. A row becomes an
error row only for what it holds, which no second run would mend; where the machine is at fault,
the run ends with the error and goes on at that row when it is started again. What is in the
output file is whole: a row cut off by a kill is dropped and scored again.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError
from tqdm import tqdm

from steerward.config import ScoreFileConfig
from steerward.engine.answer import AnswerBuilder
from steerward.engine.bulk_output import BulkOutput, state_path
from steerward.engine.loading import load_engine
from steerward.engine.served import ServedModel
from steerward.metrics import Metrics
from steerward.models.source import checkpoint_name
from steerward.protocol.errors import (
    EngineFailure,
    InputTooLong,
    InvalidRequest,
    NonFiniteScore,
    SteerwardError,
)
from steerward.protocol.items import ScoreItem
from steerward.protocol.scoring import ScoreRequest
from steerward.protocol.validation import invalid_request

# Rows that may be on their way at once: enough short ones to fill the batches of a GPU.
_WINDOW_ROWS = 4096
# What a row of UTF-8 weighs before it is tokenised.
_BYTES_PER_TOKEN = 4

# Faults of the row itself. All else is the machine's, and another run may score the row.
_ROW_ERRORS = (InvalidRequest, InputTooLong, NonFiniteScore)

_Row = tuple[int, bytes]


@dataclass(slots=True)
class BulkReport:
    """What became of the rows of a file."""

    rows: int = 0
    scored: int = 0
    failed: int = 0
    resumed: int = 0


async def score_file(config: ScoreFileConfig) -> BulkReport:
    """Score a file as its settings say, with a progress bar.

    Raises:
        SteerwardError: If the files, the weights or the directions do not fit, the model cannot
            be loaded, the output belongs to another run, or the device fails; rows already
            written stay.
    """
    _check_files(config)
    name = checkpoint_name(config.reward_model)
    # Rows wait their turn to be read, so the engine has no reason to refuse one.
    unlimited = config.model_copy(update={"max_queued_tokens": sys.maxsize})
    engine = load_engine(config.reward_model, name=name, config=unlimited, metrics=Metrics())
    _check_steering(config, engine)
    output = BulkOutput(config, engine)
    done = output.open()
    engine.start()
    try:
        await engine.wait_until_ready()
        return await _score_rows(config, engine, output, done)
    finally:
        output.close()
        engine.close()


def _check_files(config: ScoreFileConfig) -> None:
    """Refuse files that are missing, or that writing the output would destroy."""
    source, target = config.source, config.target
    if not source.is_file():
        raise InvalidRequest(f"there is no input file {source}")
    if not target.parent.is_dir():
        raise InvalidRequest(f"there is no folder {target.parent} to write {target.name} into")
    for written in (target, state_path(target)):
        if written.exists() and written.samefile(source):
            raise InvalidRequest(
                f"writing {target} would replace the input {source}; choose another output"
            )


def _check_steering(config: ScoreFileConfig, engine: ServedModel) -> None:
    """Refuse weights and directions that would fail in every row."""
    probe = _request(config, {"prompt": "?", "candidates": ["?"]})
    AnswerBuilder(engine.model, name=engine.name, request=probe)


async def _score_rows(
    config: ScoreFileConfig, engine: ServedModel, output: BulkOutput, done: int
) -> BulkReport:
    total = sum(1 for _ in _lines(config.source))
    report = BulkReport(rows=total, resumed=done)
    rows = islice(enumerate(_lines(config.source)), done, None)
    with tqdm(total=total, initial=done, unit="row", desc="scoring") as bar:
        async with aclosing(_results(config, engine, rows)) as results:
            async for result in results:
                output.write(result)
                report.failed += "error" in result
                report.scored += "error" not in result
                bar.update()
    output.complete()
    return report


async def _results(
    config: ScoreFileConfig, engine: ServedModel, rows: Iterable[_Row]
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield what becomes of each row, in order; rows behind it are on their way already."""
    window: deque[tuple[_Row, asyncio.Task[dict[str, Any]]]] = deque()
    free_bytes = config.max_queued_tokens * _BYTES_PER_TOKEN

    async def oldest() -> dict[str, Any]:
        nonlocal free_bytes
        row, task = window.popleft()
        free_bytes += len(row[1])
        try:
            return await task
        except EngineFailure:
            # Perhaps another row of its batch was at fault: try once more, alone.
            await asyncio.gather(*(task for _, task in window), return_exceptions=True)
            return await _score_row(config, engine, row)

    try:
        for row in rows:
            size = len(row[1])
            while window and (len(window) >= _WINDOW_ROWS or size > free_bytes):
                yield await oldest()
            window.append((row, asyncio.create_task(_score_row(config, engine, row))))
            free_bytes -= size
        while window:
            yield await oldest()
    finally:
        tasks = [task for _, task in window]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _score_row(config: ScoreFileConfig, engine: ServedModel, row: _Row) -> dict[str, Any]:
    number, line = row
    result: dict[str, Any] = {"row": number}
    try:
        fields = _parse(line)
        if "id" in fields:
            result["id"] = _checked_id(fields.pop("id"))
        answer = (await engine.score(_request(config, fields))).answer
    except _ROW_ERRORS as error:
        return result | error.to_body()
    except SteerwardError as error:
        raise type(error)(
            f"row {number}: {error.message}. The rows before it are written; run the same "
            "command again to go on there",
            param=error.param,
        ) from error
    (item,) = answer["items"]
    del item["index"]
    return result | item | {"model": answer["model"], "weight_version": answer["weight_version"]}


def _parse(line: bytes) -> dict[str, Any]:
    try:
        fields: object = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the row is not UTF-8: {error.reason}") from error
    except ValueError as error:
        raise InvalidRequest(f"the row is not JSON: {error}") from error
    except RecursionError as error:
        raise InvalidRequest("the row nests its lists and objects too deep to be read") from error
    if not isinstance(fields, dict):
        raise InvalidRequest("the row is not a JSON object")
    return cast("dict[str, Any]", fields)


def _checked_id(value: object) -> str | int:
    """Return an id that every JSON reader gives back as it is.

    Raises:
        InvalidRequest: If it is something else than Unicode text or an integer of 64 bits.
    """
    is_text = isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)
    is_integer = type(value) is int and -(2**63) <= value < 2**63
    if not (is_text or is_integer):
        raise InvalidRequest(
            f"the id (read as {type(value).__name__}) is neither Unicode text nor an integer of 64 "
            "bits; give one of these, or leave it out",
            param="id",
        )
    return cast("str | int", value)


def _request(config: ScoreFileConfig, fields: dict[str, Any]) -> ScoreRequest:
    directions = None if config.directions is None else list(config.directions)
    try:
        return ScoreRequest(
            items=[ScoreItem.model_validate(fields)],
            weights=config.weights,
            direction=config.direction,
            directions=directions,
            explain=config.explain,
        )
    except ValidationError as error:
        raise invalid_request(error.errors()) from error


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from (line for line in file if line.strip())
