"""How much the cache of a policy holds, and what follows for the longest sequence."""

from __future__ import annotations

import dataclasses
import logging

from steerward.policy.local.cache import BLOCK_TOKENS, CacheShape
from steerward.policy.local.checkpoint import LocalCheckpoint
from steerward.protocol.errors import CheckpointRefused

logger = logging.getLogger(__name__)


def within_cache(
    checkpoint: LocalCheckpoint, shape: CacheShape, cache_bytes: int, *, name: str
) -> LocalCheckpoint:
    """Return the checkpoint with its length limited to what the memory holds for one sequence.

    Raises:
        CheckpointRefused: If it holds next to nothing.
    """
    # One block is kept for the sample that begins beside it.
    affordable = (cache_bytes // (shape.bytes_per_token * BLOCK_TOKENS) - 1) * BLOCK_TOKENS
    if affordable >= checkpoint.max_positions:
        return checkpoint
    needed = shape.bytes_per_token * (checkpoint.max_positions + 2 * BLOCK_TOKENS)
    if affordable < BLOCK_TOKENS:
        raise CheckpointRefused(
            f"{cache_bytes:,} bytes hold no keys and values to speak of; all "
            f"{checkpoint.max_positions:,} positions of {name} need --policy-cache-bytes {needed}"
        )
    logger.warning(
        "%s takes up to %d tokens and not %d, since --policy-cache-bytes is %d; all of them need "
        "%d",
        name,
        affordable,
        checkpoint.max_positions,
        cache_bytes,
        needed,
    )
    return dataclasses.replace(checkpoint, max_positions=affordable)


def num_blocks(
    checkpoint: LocalCheckpoint, shape: CacheShape, max_running: int, cache_bytes: int
) -> int:
    """Return the blocks that the memory gives, and no more than the places could ever use."""
    most = -(-checkpoint.max_positions // BLOCK_TOKENS) + 1
    affordable = cache_bytes // (shape.bytes_per_token * BLOCK_TOKENS)
    return min(affordable, most * max_running + 1)
