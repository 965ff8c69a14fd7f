"""Rows of JSON-lines and Parquet files, each with its place for error messages."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from steerward.protocol.errors import DatasetRefused
from steerward.protocol.items import Message
from steerward.protocol.validation import invalid_request

RowT = TypeVar("RowT", bound="Row")


class Row(BaseModel):
    """What rating and preference rows have in common. Further keys are allowed and ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str
    source: str
    """Data set the row comes from; sources are reported and weighted apart."""
    split: str = "train"
    messages: list[Message]
    """Turns before the response, the last one a user turn; empty where there is no prompt."""

    @property
    def context(self) -> list[dict[str, str]]:
        """The turns before the response; an empty user turn stands in for an absent prompt."""
        if not self.messages:
            return [{"role": "user", "content": ""}]
        return [{"role": turn.role, "content": turn.content} for turn in self.messages]

    @property
    def prompt_key(self) -> str:
        """What rows of one prompt share: their first user message, else the row's own id."""
        return next((turn.content for turn in self.messages if turn.role == "user"), self.id)


class RatedResponse(Row):
    """A response with absolute ratings, each in its source's own range."""

    response: str
    ratings: dict[str, FiniteFloat] = Field(min_length=1)


class PreferencePair(Row):
    """Two responses to one prompt, of which one was preferred."""

    chosen: str
    rejected: str
    category: str | None = None
    """What the preference is about, in the source's words."""


def load_rows(paths: Sequence[Path], schema: type[RowT], *, split: str | None = None) -> list[RowT]:
    """Return the rows of files in order, those of one split if one is named.

    Raises:
        DatasetRefused: If a file cannot be read or a row breaks the schema; both are named.
    """
    rows: list[RowT] = []
    for path in paths:
        for number, fields in read_objects(path):
            try:
                row = schema.model_validate(fields)
            except ValidationError as error:
                reason = invalid_request(error.errors()).message
                raise DatasetRefused(f"{path.name}, row {number}: {reason}") from error
            if split is None or row.split == split:
                rows.append(row)
    return rows


def is_pair_file(path: Path) -> bool:
    """Return whether the rows of a file are preference pairs, by the keys of the first."""
    for _, fields in read_objects(path):
        return "chosen" in fields
    raise DatasetRefused(f"{path.name} has no rows")


def cluster_keys(rows: Sequence[Row]) -> list[str]:
    """Return what each row shares with the rows it depends on: its prompt.

    Where all rows of a source have one and the same prompt, it tells nothing apart, and each
    row stands for itself.
    """
    prompts: dict[str, set[str]] = {}
    for row in rows:
        prompts.setdefault(row.source, set()).add(row.prompt_key)
    return [row.prompt_key if len(prompts[row.source]) > 1 else row.id for row in rows]


def held_out(rows: Sequence[Row], *, share: float, seed: int) -> list[bool]:
    """Return whether each row falls into a held-out fold of about this share of the prompts.

    By a hash of the prompt, so that all rows of a prompt fall the same way in every file and
    every step.
    """
    return [_fraction(f"held-out-{seed}\0{key}") < share for key in cluster_keys(rows)]


def _fraction(text: str) -> float:
    """Return a number in 0..1 that depends on nothing but the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a file, each with its number.

    Raises:
        DatasetRefused: If the file cannot be read or a row is no object.
    """
    try:
        if path.suffix == ".parquet":
            yield from _read_parquet(path)
        else:
            yield from _read_json_lines(path)
    except (OSError, ValueError, EOFError) as error:
        raise DatasetRefused(f"{path} cannot be read: {error}") from error


def _read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    open_text = gzip.open if path.suffix == ".gz" else open
    with open_text(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file):
            try:
                fields: object = json.loads(line)
            except ValueError as error:
                raise DatasetRefused(f"{path.name}, row {number}: not JSON: {error}") from error
            if not isinstance(fields, dict):
                raise DatasetRefused(f"{path.name}, row {number}: not a JSON object")
            yield number, cast("dict[str, Any]", fields)


def _read_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow.parquet

    number = 0
    for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
        for fields in batch.to_pylist():
            # A struct column has every attribute in every row, null where there is no rating.
            if isinstance(fields.get("ratings"), dict):
                fields["ratings"] = {k: v for k, v in fields["ratings"].items() if v is not None}
            yield number, fields
            number += 1
