"""What waits for the device, and what comes back.

Axis legend: G candidates of an item, K objectives, V directions.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from torch import Tensor

from steerward.models.packing import Group


@dataclass(frozen=True, slots=True)
class ItemOutput:
    """Scores of one item, in host memory, candidates in request order."""

    rewards_GK: Tensor
    scores_G: Tensor | None
    gates: Tensor | None
    """(K,) if the gate reads the prompt, (G, K) if it reads the candidate."""
    coefficients: Tensor | None
    """Shaped as the gates; (K,) for a single objective."""
    tokens_saved: int
    """Prefix tokens that were not computed, counted for each candidate."""
    tokens_cached: int
    """Prefix tokens that an earlier batch had computed, counted once."""
    queue_s: float
    """From submission until its first batch started."""
    inference_s: float
    """From the start of its first batch until its last result was read."""


@dataclass(slots=True, eq=False)
class ScoringItem:
    """One prompt with its candidates, waiting for scores.

    The event loop owns the future and the flag; the worker reads the flag and never touches the
    future but through the loop.
    """

    future: asyncio.Future[ItemOutput]
    enqueued_at: float
    is_cancelled: bool = False
    has_one_prompt: bool = True
    """False where the template renders the prompt differently for some candidates."""
    num_chunks: int = 0
    parts: dict[int, ItemOutput] = field(default_factory=dict[int, ItemOutput])
    """Results of its chunks, by first candidate."""
    started_at: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """A part of an item that fits a forward pass: what the batcher moves."""

    item: ScoringItem
    first_candidate: int
    """Index in its item of the chunk's first candidate."""
    group: Group
    num_tokens: int
    """Tokens it is expected to cost: a prefix counts once for as many chunks as fit a pass."""


@dataclass(slots=True, eq=False)
class Submission:
    """What one request asks of the device, all its items together: the unit of fairness."""

    deadline: float
    """On the clock of `time.perf_counter`; infinite if the request may take any time."""
    chunks: deque[Chunk] = field(default_factory=deque[Chunk])
    """That have not been taken yet."""
    num_tokens: int = 0
    """Tokens that these are expected to cost."""

    def add(self, chunk: Chunk) -> None:
        """Add a chunk, before the submission is queued."""
        self.chunks.append(chunk)
        self.num_tokens += chunk.num_tokens
