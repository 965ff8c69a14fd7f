"""The batcher keeps its budget, loses nothing, starves nobody."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from steerward.engine.batcher import split_group, take_batch
from steerward.engine.items import Chunk, ScoringItem
from steerward.models.packing import Group
from steerward.models.plan import pack

# Few and of different lengths, so that neighbours often share one.
prefixes = st.sampled_from([[1], [2], [1] * 10])


def chunk(num_tokens: int, *, is_cancelled: bool = False, prefix: Sequence[int] = (1,)) -> Chunk:
    loop = asyncio.new_event_loop()
    item = ScoringItem(loop.create_future(), enqueued_at=0.0, is_cancelled=is_cancelled)
    loop.close()
    group = Group(tuple(prefix), [(1,) * (num_tokens - len(prefix))], 0)
    return Chunk(item, 0, group, num_tokens)


@settings(deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(11, 50), st.booleans(), prefixes), max_size=30),
    max_tokens=st.integers(1, 60),
)
def test_every_living_chunk_runs_once_in_order_within_the_budget(
    sizes: list[tuple[int, bool, list[int]]], max_tokens: int
) -> None:
    chunks = [
        chunk(size, is_cancelled=cancelled, prefix=prefix) for size, cancelled, prefix in sizes
    ]
    queue = deque(chunks)
    ran: list[Chunk] = []
    left = 0
    while queue:
        oldest = next((c for c in queue if not c.item.is_cancelled), None)
        batch, left_tokens = take_batch(queue, max_tokens=max_tokens)
        left += left_tokens
        if oldest is not None:
            assert batch[0] is oldest
        assert pack([c.group for c in batch]).num_tokens <= max_tokens or len(batch) == 1
        ran.extend(batch)
    assert ran == [c for c in chunks if not c.item.is_cancelled]
    assert left == sum(size for size, _, _ in sizes)


def test_chunks_that_share_a_prompt_pay_for_it_once() -> None:
    prompt = list(range(30))
    queue = deque([chunk(40, prefix=prompt), chunk(40, prefix=list(prompt)), chunk(40)])
    batch, left_tokens = take_batch(queue, max_tokens=50)
    assert len(batch) == 2
    assert left_tokens == 80
    assert len(queue) == 1


@settings(deadline=None)
@given(
    prefix=st.integers(1, 30),
    suffixes=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    max_tokens=st.integers(1, 80),
)
def test_split_group_keeps_every_suffix_whole_and_in_order(
    prefix: int, suffixes: list[int], max_tokens: int
) -> None:
    group = Group(tuple(range(prefix)), [(i,) * n for i, n in enumerate(suffixes)], prefix - 1)
    room = max(max_tokens - prefix, max_tokens // 2)
    parts = split_group(group, max_tokens=max_tokens)
    assert [s for part in parts for s in part.suffixes] == group.suffixes
    for part in parts:
        assert part.prefix == group.prefix
        assert part.gating_position == group.gating_position
        assert part.num_tokens - prefix <= room or len(part.suffixes) == 1
    # Neighbours would not have fitted together: no forward pass is wasted.
    for one, two in pairwise(parts):
        assert one.num_tokens - prefix + len(two.suffixes[0]) > room


def test_prompt_longer_than_the_budget_is_still_computed_once() -> None:
    group = Group((1,) * 2100, [(2,) * 100] * 8, gating_position=0)
    (part,) = split_group(group, max_tokens=2048)
    assert part.num_tokens == 2900


def test_prompt_within_the_budget_keeps_the_pass_within_it() -> None:
    group = Group((1,) * 500, [(2,) * 100] * 40, gating_position=0)
    parts = split_group(group, max_tokens=2048)
    assert [part.num_tokens for part in parts] == [2000, 2000, 1500]
