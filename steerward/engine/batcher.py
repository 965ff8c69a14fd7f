"""Which chunks run next: pure decisions on a queue, no thread and no tensor."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from steerward.engine.items import Chunk
from steerward.models.packing import Group


def split_group(group: Group, *, max_tokens: int) -> list[Group]:
    """Return a group as parts of at most `max_tokens` tokens each, suffixes in order.

    Every part holds the prefix again. A suffix that with its prefix is longer than the budget
    becomes a part of its own: it runs alone, it is never cut.
    """
    parts: list[Group] = []
    suffixes: list[Sequence[int]] = []
    num_tokens = len(group.prefix)
    for suffix in group.suffixes:
        if suffixes and num_tokens + len(suffix) > max_tokens:
            parts.append(Group(group.prefix, suffixes, group.gating_position))
            suffixes, num_tokens = [], len(group.prefix)
        suffixes.append(suffix)
        num_tokens += len(suffix)
    parts.append(Group(group.prefix, suffixes, group.gating_position))
    return parts


def take_batch(queue: deque[Chunk], *, max_tokens: int) -> tuple[list[Chunk], int]:
    """Remove the chunks of the next forward pass from the queue, oldest first.

    The oldest living chunk is always taken, even if it alone is over the budget; further ones
    follow in order while they fit. Chunks of cancelled items are removed and dropped.

    Returns:
        The chunks to run, and the tokens of all chunks that left the queue.
    """
    batch: list[Chunk] = []
    batch_tokens = 0
    dropped_tokens = 0
    while queue:
        chunk = queue[0]
        if chunk.item.is_cancelled:
            dropped_tokens += queue.popleft().num_tokens
            continue
        if batch and batch_tokens + chunk.num_tokens > max_tokens:
            break
        batch.append(queue.popleft())
        batch_tokens += chunk.num_tokens
    return batch, batch_tokens + dropped_tokens
