"""Which chunks run next: pure decisions on a queue, no thread and no tensor."""

from __future__ import annotations

from collections import deque

from steerward.engine.items import Chunk
from steerward.models.packing import Group


def split_group(group: Group, *, max_tokens: int) -> list[Group]:
    """Return a group as parts that each fit a forward pass, suffixes in order.

    Every part holds the prefix again, so a long one must not leave room for few suffixes only:
    a part has `max_tokens` tokens at most, or, behind a prefix of more than half of these, the
    prefix and half of `max_tokens` of suffixes. A suffix longer than that room becomes a part of
    its own: it runs alone, it is never cut.
    """
    room = max(max_tokens - len(group.prefix), max_tokens // 2)
    parts: list[Group] = []
    suffixes: list[tuple[int, ...]] = []
    num_tokens = 0
    for suffix in group.suffixes:
        if suffixes and num_tokens + len(suffix) > room:
            parts.append(Group(group.prefix, suffixes, group.gating_position))
            suffixes, num_tokens = [], 0
        suffixes.append(suffix)
        num_tokens += len(suffix)
    parts.append(Group(group.prefix, suffixes, group.gating_position))
    return parts


def take_batch(queue: deque[Chunk], *, max_tokens: int) -> tuple[list[Chunk], int]:
    """Remove the chunks of the next forward pass from the queue, oldest first.

    The oldest living chunk is always taken, even if it alone is over the budget; further ones
    follow in order while they fit. A chunk with the prefix of the one before it needs room for
    its suffixes only. Chunks of cancelled items are removed and dropped.

    Returns:
        The chunks to run, and the tokens of all chunks that left the queue.
    """
    batch: list[Chunk] = []
    batch_tokens = 0
    left_tokens = 0
    while queue:
        chunk = queue[0]
        if not chunk.item.is_cancelled:
            needed = chunk.num_tokens
            if batch and _share_prefix(batch[-1].group, chunk.group):
                needed -= len(chunk.group.prefix)
            if batch and batch_tokens + needed > max_tokens:
                break
            batch.append(chunk)
            batch_tokens += needed
        left_tokens += queue.popleft().num_tokens
    return batch, left_tokens


def _share_prefix(one: Group, other: Group) -> bool:
    return one.gating_position == other.gating_position and one.prefix == other.prefix
