"""Rows of JSON, JSON-lines and Parquet files, as mappings by column."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from steerward.protocol.errors import DatasetRefused

_ENDINGS = (".parquet", ".jsonl", ".json", ".jsonl.gz", ".json.gz")


def data_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files that are meant; a folder stands for the data files right in it, by name.

    Raises:
        DatasetRefused: If a path is not there, or a folder has no data file.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.name.endswith(_ENDINGS) and p.is_file())
            if not inside:
                raise DatasetRefused(
                    f"the folder {path} has no file that ends with {', '.join(_ENDINGS)}"
                )
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise DatasetRefused(f"there is no file or folder {path}")
    return found


def read_fields(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file, each with its columns.

    Raises:
        DatasetRefused: If the file cannot be read; it is named, and the row where there is one.
    """
    try:
        if path.suffix == ".parquet":
            yield from _read_parquet(path)
        else:
            yield from _read_json(path)
    except (OSError, EOFError, ValueError) as error:
        raise DatasetRefused(f"{path} cannot be read: {error}") from error


def _read_parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


def _read_json(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of one JSON list, or of a file with an object a line."""
    open_text = gzip.open if path.suffix == ".gz" else open
    with open_text(path, "rt", encoding="utf-8") as file:
        text = file.read()
    if text.lstrip().startswith("["):
        rows = cast("list[object]", json.loads(text))
    else:
        # Not by `splitlines`, which also breaks at characters that JSON allows inside a string.
        lines = (line for line in text.split("\n") if line.strip())
        rows = (_parsed(line, path=path, number=number) for number, line in enumerate(lines))
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DatasetRefused(f"{path.name}, row {number}: not a JSON object")
        yield cast("dict[str, Any]", row)


def _parsed(line: str, *, path: Path, number: int) -> object:
    try:
        return json.loads(line)
    except ValueError as error:
        raise DatasetRefused(f"{path.name}, row {number}: not JSON: {error}") from error
