"""Which chunks of a batch share a prompt: pure grouping, no thread and no tensor.

Requests that score one candidate each of the same prompt meet here: their prompt is computed
once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steerward.models.packing import Group


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the candidates of a chunk stand in the merged batch."""

    prompt: int
    """Index of the merged group."""
    first: int
    """Row of the chunk's first candidate; the others follow it."""
    count: int
    tokens_saved: int
    """Prefix tokens this chunk did not have to pay for."""

    @property
    def rows(self) -> slice:
        """Rows of the chunk's candidates."""
        return slice(self.first, self.first + self.count)


def merge_groups(groups: Sequence[Group]) -> tuple[list[Group], list[Placement]]:
    """Return groups of which no two have the same prefix, and where each old one went."""
    members: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault((group.gating_position, tuple(group.prefix)), []).append(i)
    merged: list[Group] = []
    placements: dict[int, Placement] = {}
    row = 0
    for (gating_position, prefix), indices in members.items():
        suffixes: list[Sequence[int]] = []
        for i in indices:
            count = len(groups[i].suffixes)
            reused = count if suffixes else count - 1
            placements[i] = Placement(len(merged), row, count, reused * len(prefix))
            suffixes.extend(groups[i].suffixes)
            row += count
        merged.append(Group(prefix, suffixes, gating_position))
    return merged, [placements[i] for i in range(len(groups))]
