"""Every sample of a job with where it came from and what became of it, in Parquet.

One row a completion. A file is there whole and durable, or not at all.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from steerward.jobs.disk import write_whole
from steerward.protocol.errors import DatasetRefused, NonFiniteScore

_REWARDS = pa.map_(pa.string(), pa.float64())

SCHEMA = pa.schema(
    [
        pa.field("job_id", pa.string(), nullable=False),
        pa.field("iteration", pa.int32(), nullable=False),
        pa.field("number", pa.int32(), nullable=False),
        pa.field("prompt_row", pa.int64(), nullable=False),
        pa.field("direction_index", pa.int32(), nullable=False),
        pa.field("direction", _REWARDS, nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("sample_seed", pa.int64(), nullable=False),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("completion", pa.string(), nullable=False),
        pa.field("tokens", pa.int32()),
        pa.field("is_finished", pa.bool_(), nullable=False),
        pa.field("rewards", _REWARDS, nullable=False),
        pa.field("score", pa.float64()),
        pa.field("direction_score", pa.float64(), nullable=False),
        pa.field("policy_weight_version", pa.string(), nullable=False),
        pa.field("reward_model", pa.string(), nullable=False),
        pa.field("reward_weight_version", pa.string(), nullable=False),
        pa.field("selected", pa.bool_(), nullable=False),
        pa.field("selected_for", pa.list_(pa.int32()), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("pool_scores", pa.map_(pa.int32(), pa.float64()), nullable=False),
    ]
)
"""Columns of a file of samples."""

_MAPPINGS = ("direction", "rewards", "pool_scores")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRow:
    """One sample."""

    job_id: str
    iteration: int
    number: int
    """Place of the prompt in the iteration."""
    prompt_row: int
    """Of the prompt in its file."""
    direction_index: int
    """Which of the iteration's directions it was drawn for."""
    direction: Mapping[str, float]
    """That direction, in the policy's names."""
    sample: int
    """Which of the prompt and direction, from 0."""
    sample_seed: int
    prompt: Sequence[Mapping[str, str]]
    """The conversation without the direction's words; JSON in the file."""
    completion: str
    tokens: int | None
    is_finished: bool
    rewards: Mapping[str, float]
    """In the reward model's names, as the heads give them."""
    score: float | None
    """The reward model's own."""
    direction_score: float
    """``v . r`` under the direction that it was drawn for, on the scale of `/v1/score`."""
    policy_weight_version: str
    reward_model: str
    reward_weight_version: str
    selected_for: Sequence[int] = ()
    """Directions that it is learned for."""
    reason: str = ""
    """"best" where it is selected, else why not; empty before there was a selection."""
    pool_scores: Mapping[int, float] = field(default_factory=dict)
    """``v . r`` under each direction that it competed for, on the scale of the selection."""

    def __post_init__(self) -> None:
        values = [self.direction_score, *self.rewards.values(), *self.pool_scores.values()]
        if not all(map(math.isfinite, values)):
            raise NonFiniteScore(
                f"sample {self.sample} of prompt {self.number} in iteration {self.iteration} has "
                "a reward or a direction score that is not a finite number"
            )

    @property
    def selected(self) -> bool:
        """Whether it is learned for any direction."""
        return bool(self.selected_for)

    def to_columns(self) -> dict[str, Any]:
        """Return a row of a file."""
        row = {one.name: getattr(self, one.name) for one in fields(self)}
        row |= {name: list(row[name].items()) for name in _MAPPINGS}
        prompt = json.dumps([dict(turn) for turn in self.prompt], ensure_ascii=False)
        selected_for = list(self.selected_for)
        return row | {"prompt": prompt, "selected": self.selected, "selected_for": selected_for}

    @classmethod
    def from_columns(cls, row: Mapping[str, Any]) -> SampleRow:
        """Return the sample of a row of a file."""
        values = {one.name: row[one.name] for one in fields(cls)}
        values |= {name: dict(values[name]) for name in _MAPPINGS}
        values["prompt"] = tuple(json.loads(values["prompt"]))
        values["selected_for"] = tuple(values["selected_for"])
        return cls(**values)


def write_samples(path: Path, rows: Iterable[SampleRow]) -> None:
    """Write a file of samples, whole or not at all.

    Raises:
        OSError: If it cannot be written.
    """
    table = pa.Table.from_pylist([row.to_columns() for row in rows], schema=SCHEMA)
    write_whole(path, lambda building: parquet.write_table(table, building, compression="zstd"))


def read_samples(path: Path) -> list[SampleRow]:
    """Return the samples of a file, or of all files of a folder in the order of their numbers.

    Raises:
        FileNotFoundError: If it is not there.
        DatasetRefused: If a file is damaged, or holds no samples.
    """
    if not path.is_dir():
        return _read(path)
    parts = sorted(path.glob("*.parquet"), key=lambda part: _natural(part.name))
    return [row for part in parts for row in _read(part)]


def _read(path: Path) -> list[SampleRow]:
    try:
        with parquet.ParquetFile(path) as file:
            table = file.read().select(SCHEMA.names).cast(SCHEMA)
        return [SampleRow.from_columns(row) for row in table.to_pylist()]
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, NonFiniteScore) as error:
        reason = str(error).partition("\n")[0]
        raise DatasetRefused(
            f"{path.name} is no whole file of samples: {reason}; remove it, and it is made again"
        ) from error


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key by which part-10 comes after part-9."""
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in _DIGITS.split(name)]


_DIGITS = re.compile(r"([0-9]+)")
