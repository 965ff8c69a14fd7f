"""The batcher keeps its budget, loses nothing, starves nobody."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from steerward.engine.batcher import split_group, take_batch
from steerward.engine.items import Chunk, ScoringItem
from steerward.models.packing import Group


def chunk(num_tokens: int, *, is_cancelled: bool = False) -> Chunk:
    loop = asyncio.new_event_loop()
    item = ScoringItem(loop.create_future(), enqueued_at=0.0, is_cancelled=is_cancelled)
    loop.close()
    return Chunk(item, 0, Group([1], [[1] * (num_tokens - 1)], 0), num_tokens)


@given(
    sizes=st.lists(st.tuples(st.integers(2, 50), st.booleans()), max_size=30),
    max_tokens=st.integers(1, 60),
)
def test_every_living_chunk_runs_once_in_order_within_the_budget(
    sizes: list[tuple[int, bool]], max_tokens: int
) -> None:
    chunks = [chunk(size, is_cancelled=cancelled) for size, cancelled in sizes]
    queue = deque(chunks)
    ran: list[Chunk] = []
    left = 0
    while queue:
        oldest = next((c for c in queue if not c.item.is_cancelled), None)
        batch, left_tokens = take_batch(queue, max_tokens=max_tokens)
        left += left_tokens
        if oldest is not None:
            assert batch[0] is oldest
        total = sum(c.num_tokens for c in batch)
        assert total <= max_tokens or len(batch) == 1
        ran.extend(batch)
    assert ran == [c for c in chunks if not c.item.is_cancelled]
    assert left == sum(size for size, _ in sizes)


@given(
    prefix=st.integers(1, 30),
    suffixes=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    max_tokens=st.integers(1, 80),
)
def test_split_group_keeps_every_suffix_whole_and_in_order(
    prefix: int, suffixes: list[int], max_tokens: int
) -> None:
    group = Group(list(range(prefix)), [[i] * n for i, n in enumerate(suffixes)], prefix - 1)
    parts = split_group(group, max_tokens=max_tokens)
    assert [s for part in parts for s in part.suffixes] == group.suffixes
    for part in parts:
        assert part.prefix == group.prefix
        assert part.gating_position == group.gating_position
        assert part.num_tokens <= max_tokens or len(part.suffixes) == 1
    # Neighbours would not have fitted together: no forward pass is wasted.
    for one, two in pairwise(parts):
        assert one.num_tokens + len(two.suffixes[0]) > max_tokens
