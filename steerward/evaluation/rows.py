"""Rows of benchmarks in one shape: a prompt, its better answers and its worse ones.

Rows that break their benchmark's format end the run, with the file and the row, counted from 0.
What a reward model refuses in a row is no matter of this module: such a row is read, fails when
it is scored, and is told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from steerward.evaluation.files import data_files, read_fields
from steerward.protocol.errors import DatasetRefused
from steerward.protocol.validation import invalid_request

Prompt = str | tuple[Mapping[str, str], ...]
"""One user turn, or turns with role and content."""


class PublishedRow(BaseModel):
    """What the formats of rows have in common: columns without a part in the rule are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


@dataclass(frozen=True, slots=True)
class BenchmarkRow:
    """One row of a benchmark."""

    subset: str
    """Part of the benchmark that it counts for, by the benchmark's own name."""
    prompt: Prompt
    chosen: tuple[str, ...]
    """Answers that should have the higher scores."""
    rejected: tuple[str, ...]
    """Answers that should have the lower scores."""
    id: str | None = None
    label: str = ""
    """What the benchmark says of the pair, where its rule for ties reads it."""
    response_model: str = ""
    """Which model gave the answers, where results are published for each."""

    @property
    def candidates(self) -> list[str]:
        """The better answers, then the worse ones: the order of the scores."""
        return [*self.chosen, *self.rejected]


@dataclass(frozen=True, slots=True)
class PlacedRow:
    """A row, and where it stands."""

    file: str
    number: int
    """In its file, from 0."""
    row: BenchmarkRow

    @property
    def place(self) -> str:
        """Where it stands, for people."""
        name = "" if self.row.id is None else f" (id {self.row.id})"
        return f"{self.file}, row {self.number}{name}"


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """A row and its scores; none where it could not be scored."""

    row: BenchmarkRow
    scores: tuple[float, ...] | None

    @property
    def chosen(self) -> tuple[float, ...]:
        """Scores of the better answers."""
        assert self.scores is not None
        return self.scores[: len(self.row.chosen)]

    @property
    def rejected(self) -> tuple[float, ...]:
        """Scores of the worse answers."""
        assert self.scores is not None
        return self.scores[len(self.row.chosen) :]


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file that rows were read from."""

    name: str
    sha256: str
    rows: int


ReadRow = Callable[[Mapping[str, Any], str], BenchmarkRow]
"""From the columns of a row and its file's name without ending; a ValueError says what is wrong."""


def read_rows(
    paths: Sequence[Path], read_row: ReadRow
) -> tuple[list[PlacedRow], tuple[DataFile, ...]]:
    """Return the rows of files in order, and what each file was.

    Raises:
        DatasetRefused: If a file cannot be read, a row breaks the format, there are no rows, or
            two files hold the same row, which would count twice.
    """
    rows: list[PlacedRow] = []
    files: list[DataFile] = []
    for path in data_files(paths):
        before = len(rows)
        for number, fields in enumerate(read_fields(path)):
            rows.append(PlacedRow(path.name, number, _read(fields, path, number, read_row)))
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files.append(DataFile(path.name, digest, len(rows) - before))
        _refuse_repeated(rows[:before], rows[before:])
    if not rows:
        raise DatasetRefused(f"{', '.join(file.name for file in files)}: no rows")
    return rows, tuple(files)


def _read(fields: Mapping[str, Any], path: Path, number: int, read_row: ReadRow) -> BenchmarkRow:
    try:
        return read_row(fields, path.name.partition(".")[0])
    except ValidationError as error:
        reason = invalid_request(error.errors()).message
        raise DatasetRefused(f"{path.name}, row {number}: {reason}") from error
    except ValueError as error:
        raise DatasetRefused(f"{path.name}, row {number}: {error}") from error


def _refuse_repeated(earlier: Sequence[PlacedRow], later: Sequence[PlacedRow]) -> None:
    seen = {_identity(placed.row): placed for placed in earlier}
    for placed in later:
        first = seen.get(_identity(placed.row))
        if first is not None:
            raise DatasetRefused(
                f"{placed.place} is the same as {first.place}; it would count twice: leave one of "
                "the files out"
            )


def _identity(row: BenchmarkRow) -> bytes:
    parts = (row.subset, row.id, row.prompt, row.chosen, row.rejected)
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).digest()
