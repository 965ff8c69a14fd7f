"""Which keys each query of a packed batch sees: pure data, made once a batch for all layers.

Axis letters: T queries, S keys. Rows are counted in the tensors of one call.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Span(NamedTuple):
    """Key rows ``start:end``."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class QueryRun:
    """Consecutive queries of one sequence with the keys they see.

    The keys of a sequence are its spans in order, then its own: position 0 is the first row of
    the first span. Every query of the run sees all of the spans. Its own keys it sees causally,
    aligned at the ends: the last query sees them all, the one before it all but the last.
    """

    start: int
    """First query row."""
    end: int
    """Behind the last query row; ``end - start`` is at most the number of own keys."""
    spans: tuple[Span, ...]
    """What the run sees whole, oldest first: prompts, parts of prompts, cached keys."""
    own: Span
    """Keys of the run itself, at least one."""


@dataclass(frozen=True, slots=True)
class AttentionLayout:
    """The runs of one call, end to end: each starts where the one before it ended.

    Runs that share a span follow each other, so that the span has one stretch of queries.

    Raises:
        ValueError: If the runs leave a gap, or one has more queries than own keys.
    """

    runs: tuple[QueryRun, ...]
    num_queries: int = field(init=False, repr=False, compare=False)
    """Query rows, T."""
    num_keys: int = field(init=False, repr=False, compare=False)
    """Key rows that a call must have at least, S."""
    longest: int = field(init=False, repr=False, compare=False)
    """Most keys that a query sees."""

    def __post_init__(self) -> None:
        num_queries = num_keys = longest = 0
        for number, run in enumerate(self.runs):
            if run.start != num_queries or run.end < run.start:
                raise ValueError(
                    f"run {number} has queries {run.start}:{run.end}, the one before it ends at "
                    f"{num_queries}"
                )
            num_queries = run.end
            seen = 0
            for start, end in (*run.spans, run.own):
                if not 0 <= start <= end:
                    raise ValueError(f"run {number} has keys {start}:{end}")
                num_keys = max(num_keys, end)
                seen += end - start
            longest = max(longest, seen)
            if run.own.end - run.own.start < max(1, run.end - run.start):
                raise ValueError(
                    f"run {number} has {run.end - run.start} queries, but its own keys are only "
                    f"{run.own.start}:{run.own.end}"
                )
        object.__setattr__(self, "num_queries", num_queries)
        object.__setattr__(self, "num_keys", num_keys)
        object.__setattr__(self, "longest", longest)
