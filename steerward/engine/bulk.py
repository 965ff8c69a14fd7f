"""Score a JSON-lines file: in order, resumable, one bad row never stops the rest.

Rows are written in input order as soon as they and all before them are done. What is in the
output file is whole: a row cut off by a kill is dropped and scored again. A small state file
beside it says which input, model and settings it belongs to, so that a resumed run cannot mix
two of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import orjson
from pydantic import ValidationError
from tqdm import tqdm

from steerward.config import ScoreFileConfig
from steerward.engine.engine import Engine
from steerward.engine.loading import load_engine
from steerward.metrics import Metrics
from steerward.models.source import checkpoint_name
from steerward.protocol.errors import InvalidRequest, NotReady, SteerwardError
from steerward.protocol.scoring import ScoreItem, ScoreRequest
from steerward.protocol.validation import invalid_request

# Rows that may be on their way at once: enough to fill batches, little enough to keep in memory.
_WINDOW_ROWS = 256


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
        SteerwardError: If the model cannot be loaded, the output belongs to another run, or the
            device fails; rows already written stay.
    """
    if not config.source.is_file():
        raise InvalidRequest(f"there is no input file {config.source}")
    name = checkpoint_name(config.reward_model)
    engine = load_engine(config.reward_model, name=name, config=config, metrics=Metrics())
    output = _Output(config, weight_version=engine.weight_version)
    done = output.open()
    engine.start()
    try:
        await engine.wait_until_ready()
        return await _score_rows(config, engine, output, done)
    finally:
        output.close()
        engine.close()


async def _score_rows(
    config: ScoreFileConfig, engine: Engine, output: _Output, done: int
) -> BulkReport:
    report = BulkReport(resumed=done)
    window: deque[asyncio.Task[dict[str, Any]]] = deque()
    total = sum(1 for _ in _lines(config.source))
    with tqdm(total=total, initial=done, unit="row", desc="scoring") as bar:
        try:
            for row, line in enumerate(_lines(config.source)):
                report.rows += 1
                if row < done:
                    continue
                if len(window) >= _WINDOW_ROWS:
                    _write(output, await window.popleft(), report, bar)
                window.append(asyncio.create_task(_score_row(config, engine, row, line)))
            while window:
                _write(output, await window.popleft(), report, bar)
        finally:
            for task in window:
                task.cancel()
    output.complete()
    return report


async def _score_row(
    config: ScoreFileConfig, engine: Engine, row: int, line: bytes
) -> dict[str, Any]:
    result: dict[str, Any] = {"row": row}
    try:
        fields = _parse(line)
        if "id" in fields:
            result["id"] = fields.pop("id")
        scored = await engine.score(_request(config, fields))
    except NotReady:
        raise  # The device is gone: no further row can be scored.
    except SteerwardError as error:
        return result | error.to_body()
    answer = scored.answer
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
    if not isinstance(fields, dict):
        raise InvalidRequest("the row is not a JSON object")
    return cast("dict[str, Any]", fields)


def _request(config: ScoreFileConfig, fields: dict[str, Any]) -> ScoreRequest:
    try:
        item = ScoreItem.model_validate(fields)
    except ValidationError as error:
        raise invalid_request(error.errors()) from error
    return ScoreRequest(
        items=[item],
        weights=config.weights,
        direction=config.direction,
        explain=config.explain,
    )


def _write(output: _Output, result: dict[str, Any], report: BulkReport, bar: Any) -> None:
    output.write(result)
    if "error" in result:
        report.failed += 1
    else:
        report.scored += 1
    bar.update()


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from (line for line in file if line.strip())


class _Output:
    """The output file and the state file beside it.

    Args:
        config: What is asked for.
        weight_version: Of the model that scores.
    """

    def __init__(self, config: ScoreFileConfig, *, weight_version: str) -> None:
        self._path = config.target
        self._state_path = config.target.with_name(config.target.name + ".state.json")
        self._overwrite = config.overwrite
        self._state = {
            "source_sha256": _digest(config.source),
            "weight_version": weight_version,
            "weights": config.weights,
            "direction": config.direction,
            "explain": config.explain,
        }
        self._file: BinaryIO | None = None

    def open(self) -> int:
        """Open the output for appending; return how many whole rows it holds.

        Raises:
            InvalidRequest: If it holds something else than the beginning of this run.
        """
        if self._path.exists() and not self._overwrite:
            self._check_state()
            done = self._drop_partial_row()
        else:
            done = 0
            self._path.write_bytes(b"")
        temporary = self._state_path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self._state))
        os.replace(temporary, self._state_path)
        self._file = self._path.open("ab")
        return done

    def write(self, result: dict[str, Any]) -> None:
        """Append a row."""
        assert self._file is not None
        self._file.write(orjson.dumps(result) + b"\n")
        self._file.flush()

    def complete(self) -> None:
        """Make the file durable and remove the state: the run is over."""
        assert self._file is not None
        os.fsync(self._file.fileno())
        self._state_path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; what was written stays."""
        if self._file is not None:
            self._file.close()

    def _check_state(self) -> None:
        if not self._state_path.exists():
            raise InvalidRequest(
                f"{self._path} exists and no unfinished run belongs to it; choose another output, "
                "or replace it with --overwrite"
            )
        found = json.loads(self._state_path.read_text())
        different = sorted(key for key, value in self._state.items() if found.get(key) != value)
        if different:
            raise InvalidRequest(
                f"{self._path} was begun with another {', '.join(different)}; choose another "
                "output, or start over with --overwrite"
            )

    def _drop_partial_row(self) -> int:
        """Cut a row that a kill left unfinished, and return the number of whole ones."""
        with self._path.open("r+b") as file:
            rows, whole_bytes = 0, 0
            for line in file:
                if not line.endswith(b"\n"):
                    break
                rows += 1
                whole_bytes += len(line)
            file.truncate(whole_bytes)
        return rows


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
