"""Who holds which block of the paged cache. Pure bookkeeping, no tensors."""

from __future__ import annotations

from collections.abc import Sequence


class BlockPool:
    """Blocks of equal size, counted by how many sequences read them.

    Args:
        num_blocks: In the cache.
        block_tokens: Tokens in one block.
    """

    def __init__(self, num_blocks: int, *, block_tokens: int) -> None:
        self.num_blocks = num_blocks
        self.block_tokens = block_tokens
        self._free = list(range(num_blocks - 1, -1, -1))
        self._readers = [0] * num_blocks

    @property
    def num_free(self) -> int:
        """Blocks that nobody reads."""
        return len(self._free)

    def blocks_for(self, tokens: int) -> int:
        """Return how many blocks so many tokens take."""
        return -(-tokens // self.block_tokens)

    def take(self, count: int) -> list[int]:
        """Return free blocks, now held once; there must be as many."""
        assert count <= len(self._free), "the caller looks at num_free first"
        taken = [self._free.pop() for _ in range(count)]
        for block in taken:
            self._readers[block] = 1
        return taken

    def share(self, blocks: Sequence[int]) -> None:
        """Count one more reader of each block."""
        for block in blocks:
            assert self._readers[block] > 0, "only blocks that somebody holds can be shared"
            self._readers[block] += 1

    def release(self, blocks: Sequence[int]) -> None:
        """Count one reader less of each block; those without any are free again."""
        for block in blocks:
            assert self._readers[block] > 0, "nobody holds this block"
            self._readers[block] -= 1
            if not self._readers[block]:
                self._free.append(block)
