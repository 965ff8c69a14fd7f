"""The folder in which samples gather while they are drawn: a file a block, with notes beside it.

A block counts when its samples are there. The notes are written first, so that whatever counts
has them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from steerward.jobs.disk import write_whole
from steerward.jobs.rsf.samples import SampleRow, write_samples


@dataclass(frozen=True, slots=True)
class Block:
    """Samples of some prompts."""

    rows: Sequence[SampleRow]
    tokens: int
    """Drawn; the rows may not know it one by one."""
    left_out: int
    """Prompts without samples."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a whole drawing took, over all runs that it needed."""

    tokens: int
    left_out: int
    seconds: Mapping[str, float]
    """By activity, up to the last block of a run that was killed."""


class Blocks:
    """Blocks in a folder.

    Args:
        folder: Made if it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def has(self, number: int) -> bool:
        """Return whether a block is there."""
        return self._samples(number).exists()

    def write(self, number: int, block: Block, seconds: Mapping[str, float]) -> None:
        """Add a block.

        Raises:
            OSError: If it cannot be written.
        """
        notes = json.dumps(
            {"tokens": block.tokens, "left_out": block.left_out, "seconds": dict(seconds)}
        )
        write_whole(self._notes(number), lambda path: path.write_text(notes))
        write_samples(self._samples(number), block.rows)

    def drawn(self) -> Drawn:
        """Return what all blocks took."""
        tokens, left_out = 0, 0
        seconds: Counter[str] = Counter()
        for samples in self._folder.glob("block-*.parquet"):
            notes = json.loads(samples.with_suffix(".json").read_text())
            tokens += notes["tokens"]
            left_out += notes["left_out"]
            seconds.update(notes["seconds"])
        return Drawn(tokens, left_out, dict(seconds))

    def _samples(self, number: int) -> Path:
        return self._folder / f"block-{number:05d}.parquet"

    def _notes(self, number: int) -> Path:
        return self._folder / f"block-{number:05d}.json"
