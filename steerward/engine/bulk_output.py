"""The output of bulk scoring: whole rows, and beside them what run they belong to.

A small state file says which input, model and settings gave the rows, so that a resumed run
cannot mix two of them; it goes when the run is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from steerward.config import ScoreFileConfig
from steerward.engine.served import ServedModel
from steerward.protocol.errors import InvalidRequest


class BulkOutput:
    """The output file and its state.

    Args:
        config: What is asked for.
        engine: That scores.
    """

    def __init__(self, config: ScoreFileConfig, engine: ServedModel) -> None:
        self._path = config.target
        self._state_path = state_path(config.target)
        self._overwrite = config.overwrite
        card = engine.card()
        # All that numbers depend on.
        self._state = {
            "source_sha256": _digest(config.source),
            "weight_version": card.weight_version,
            "dtype": card.dtype,
            "device": engine.model.device.type,
            "max_input_tokens": card.max_input_tokens,
            "weights": config.weights,
            "direction": config.direction,
            "directions": list(config.directions or ()),
            "explain": config.explain,
        }
        self._file: BinaryIO | None = None

    def open(self) -> int:
        """Open the output for appending; return how many whole rows it holds.

        Raises:
            InvalidRequest: If it holds something else than the beginning of this run.
        """
        # An empty output has nothing to lose: a kill may have come before its state was there.
        if self._path.exists() and self._path.stat().st_size and not self._overwrite:
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
        # Errors name keys of the row, which may be no Unicode text: the escapes of the standard
        # encoder can spell that, orjson refuses to.
        encoded = json.dumps(result).encode() if "error" in result else orjson.dumps(result)
        self._file.write(encoded + b"\n")
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


def state_path(target: Path) -> Path:
    """Return the file that says which run an unfinished output belongs to."""
    return target.with_name(target.name + ".state.json")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
