"""A layout as the kernel reads it: three vectors of integers, the same for every layer.

Axis letters: R runs, B blocks of queries, V stretches of keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from steerward.kernels.prefix_attention.layout import AttentionLayout, Span

QUERY_BLOCK = 128
"""Queries of one block at most. The kernel's own tiles divide it, whatever the size of a head."""
RUN_FIELDS = 5
SPAN_FIELDS = 2
BLOCK_FIELDS = 2


@dataclass(frozen=True, slots=True)
class LayoutTables:
    """What the kernel reads of a layout: flat int64 vectors on one device.

    A caller with more to move lays these fields and its own tensors end to end, copies once, and
    makes the tables of the device from the pieces: ``LayoutTables(*pieces)``.
    """

    runs: Tensor
    """(R * 5): first query, behind the last query, position of the first query in its sequence,
    first stretch of keys, behind the last stretch."""
    spans: Tensor
    """(V * 2): start and end of each stretch of keys. A run's spans in order, its own keys last;
    where one begins at the row at which the other ended, they are one stretch."""
    blocks: Tensor
    """(B * 2): run, first query. No block reaches into another run."""

    @classmethod
    def build(cls, layout: AttentionLayout) -> LayoutTables:
        """Return the tables of a layout on the host."""
        runs: list[int] = []
        spans: list[int] = []
        blocks: list[int] = []
        for number, run in enumerate(layout.runs):
            first_span = len(spans) // SPAN_FIELDS
            stretches = _joined((*run.spans, run.own))
            for stretch in stretches:
                spans.extend(stretch)
            num_keys = sum(end - start for start, end in stretches)
            position = num_keys - (run.end - run.start)
            end_span = first_span + len(stretches)
            runs.extend((run.start, run.end, position, first_span, end_span))
            for first in range(run.start, run.end, QUERY_BLOCK):
                blocks.extend((number, first))
        return cls(*(torch.tensor(rows, dtype=torch.int64) for rows in (runs, spans, blocks)))

    @property
    def num_runs(self) -> int:
        """Runs, R."""
        return self.runs.shape[0] // RUN_FIELDS

    @property
    def num_blocks(self) -> int:
        """Blocks of queries, B."""
        return self.blocks.shape[0] // BLOCK_FIELDS

    def to(self, device: torch.device) -> LayoutTables:
        """Return the tables on a device, moved by one copy that nobody waits for."""
        if self.runs.device == device:
            return self
        parts = (self.runs, self.spans, self.blocks)
        staged = torch.cat(parts)
        if device.type == "cuda":
            staged = staged.pin_memory()
        moved = staged.to(device, non_blocking=True)
        return LayoutTables(*moved.split([part.shape[0] for part in parts]))


def _joined(stretches: tuple[Span, ...]) -> list[Span]:
    """Return the same keys in the same order, in as few stretches as can be; none is empty."""
    joined: list[Span] = []
    for stretch in stretches:
        if stretch.start == stretch.end:
            continue
        if joined and joined[-1].end == stretch.start:
            joined[-1] = Span(joined[-1].start, stretch.end)
        else:
            joined.append(stretch)
    return joined
