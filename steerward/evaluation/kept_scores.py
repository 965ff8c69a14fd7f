"""Scores beside a report, kept as they come, so that a run goes on where it was stopped.

The first line says what the scores belong to; another run's are never mixed in. Each further line
is a row, in the order in which rows were done.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from steerward.evaluation.rows import PlacedRow
from steerward.protocol.errors import InvalidRequest, SteerwardError


@dataclass(frozen=True, slots=True)
class RowResult:
    """What became of a row: scores, or an error that no second run would mend."""

    scores: tuple[float, ...] | None = None
    code: str = ""
    message: str = ""

    @classmethod
    def of_error(cls, error: SteerwardError) -> RowResult:
        """Return the result of a row that cannot be scored."""
        return cls(code=error.code, message=error.message)


class KeptScores:
    """A file of scores.

    Args:
        path: Of the file.
        state: All that the numbers depend on.
        overwrite: Whether to start over.
    """

    def __init__(self, path: Path, *, state: Mapping[str, Any], overwrite: bool) -> None:
        self._path = path
        # As JSON gives it back, so that it can be compared.
        self._state = json.loads(json.dumps(state))
        self._overwrite = overwrite
        self._file: BinaryIO | None = None

    def open(self) -> dict[int, RowResult]:
        """Open the file for appending; return the results in it by number of the row.

        Raises:
            InvalidRequest: If it holds something else than a part of this run.
        """
        results: dict[int, RowResult] = {}
        if self._path.exists() and not self._overwrite:
            results = self._read()
        else:
            self._path.write_bytes(b"")
        self._file = self._path.open("ab")
        if self._file.tell() == 0:
            self._append({"state": self._state})
        return results

    def write(self, index: int, placed: PlacedRow, result: RowResult) -> None:
        """Append the result of a row."""
        line: dict[str, Any] = {"row": index, "file": placed.file, "id": placed.row.id}
        if result.scores is None:
            line["error"] = {"code": result.code, "message": result.message}
        else:
            line["scores"] = result.scores
        self._append(line)

    def close(self) -> None:
        """Close the file; what was written stays."""
        if self._file is not None:
            self._file.close()

    def _append(self, line: Mapping[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()

    def _read(self) -> dict[int, RowResult]:
        """Return the results of all whole lines, and cut a line that a kill left unfinished."""
        results: dict[int, RowResult] = {}
        whole_bytes = 0
        with self._path.open("r+b") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                fields = self._parsed(line)
                if whole_bytes == 0:
                    self._check_state(fields.get("state"))
                else:
                    results[fields["row"]] = _result(fields)
                whole_bytes += len(line)
            file.truncate(whole_bytes)
        return results

    def _parsed(self, line: bytes) -> dict[str, Any]:
        try:
            fields: object = json.loads(line)
        except ValueError:
            fields = None
        if not isinstance(fields, dict) or not {"state", "row"} & fields.keys():
            raise InvalidRequest(
                f"{self._path} is no file of scores; move it away, choose another --out, or "
                "replace it with --overwrite"
            )
        return cast("dict[str, Any]", fields)

    def _check_state(self, found: object) -> None:
        state = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
        different = sorted(key for key, value in self._state.items() if state.get(key) != value)
        if different:
            raise InvalidRequest(
                f"{self._path} was begun with another {', '.join(different)}; choose another "
                "--out, or start over with --overwrite"
            )


def _result(fields: Mapping[str, Any]) -> RowResult:
    if "scores" in fields:
        return RowResult(tuple(fields["scores"]))
    return RowResult(code=fields["error"]["code"], message=fields["error"]["message"])
