"""Rows in the published format of IFEval, and the responses to their prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from steerward.evaluation.files import data_files, read_fields
from steerward.evaluation.rows import DataFile, PublishedRow
from steerward.instructions import Instruction, read_instructions
from steerward.protocol.errors import DatasetRefused, InvalidRequest
from steerward.protocol.validation import invalid_request


class _Row(PublishedRow):
    """A row as published; the column `key` is its number there."""

    key: int | str | None = None
    prompt: str = Field(min_length=1)
    instruction_id_list: list[str] = Field(min_length=1)
    kwargs: list[dict[str, Any] | None]


class _Response(PublishedRow):
    """A line of the file that the published evaluation reads."""

    prompt: str
    response: str


@dataclass(frozen=True, slots=True)
class InstructedRow:
    """A prompt and the instructions that its response should meet."""

    place: str
    """File and row, for people; messages do not hold the prompt."""
    prompt: str
    instructions: tuple[Instruction, ...]


def read_instructed_rows(
    paths: Sequence[Path],
) -> tuple[list[InstructedRow], tuple[DataFile, ...]]:
    """Return the rows of files in order, and what each file was.

    Raises:
        DatasetRefused: If a file cannot be read, a row breaks the format or has an instruction
            that is unknown or wrong, there are no rows, or two rows have the same prompt: its
            one response would count twice.
    """
    rows: list[InstructedRow] = []
    files: list[DataFile] = []
    for path in data_files(paths):
        before = len(rows)
        rows += [_instructed(fields, place) for place, fields in _placed(path)]
        files.append(_described(path, len(rows) - before))
    if not rows:
        raise DatasetRefused(f"{', '.join(file.name for file in files)}: no rows")
    first: dict[str, str] = {}
    for row in rows:
        _refuse_second(row.prompt, row.place, first)
    return rows, tuple(files)


def read_responses(path: Path) -> tuple[dict[str, str], DataFile]:
    """Return the response to each prompt, and what the file was.

    Raises:
        DatasetRefused: If the file cannot be read, a row lacks ``prompt`` or ``response``, or
            two rows have the same prompt; the published evaluation keeps the last of them.
    """
    if not path.is_file():
        raise DatasetRefused(f"there is no file {path} of responses")
    responses: dict[str, str] = {}
    first: dict[str, str] = {}
    for place, fields in _placed(path):
        try:
            row = _Response.model_validate(fields)
        except ValidationError as error:
            raise DatasetRefused(f"{place}: {invalid_request(error.errors()).message}") from error
        _refuse_second(row.prompt, place, first)
        responses[row.prompt] = row.response
    return responses, _described(path, len(responses))


def _placed(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, fields in enumerate(read_fields(path)):
        yield f"{path.name}, row {number}", fields


def _instructed(fields: Mapping[str, Any], place: str) -> InstructedRow:
    try:
        row = _Row.model_validate(fields)
        instructions = read_instructions(row.instruction_id_list, row.kwargs)
    except ValidationError as error:
        raise DatasetRefused(f"{place}: {invalid_request(error.errors()).message}") from error
    except InvalidRequest as error:
        raise DatasetRefused(f"{place}: {error}") from error
    named = place if row.key is None else f"{place} (key {row.key})"
    return InstructedRow(named, row.prompt, tuple(instructions))


def _refuse_second(prompt: str, place: str, first: dict[str, str]) -> None:
    if prompt in first:
        raise DatasetRefused(
            f"{place} has the same prompt as {first[prompt]}; responses are joined by prompt: "
            "leave one of the two out"
        )
    first[prompt] = place


def _described(path: Path, rows: int) -> DataFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return DataFile(path.name, digest, rows)
