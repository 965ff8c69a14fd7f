"""Which keys each query of a packed batch sees: pure data, made once a batch for all layers.

Axis letters: T queries, S keys. Rows are counted in the tensors of one call.
"""

from __future__ import annotations

from dataclasses import dataclass
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
    """

    runs: tuple[QueryRun, ...]

    @property
    def num_queries(self) -> int:
        """Query rows, T."""
        return self.runs[-1].end if self.runs else 0
