"""Keys and values of all running sequences, in blocks that any of them may hold.

Axis legend: S slots (blocks times tokens in one), G heads of keys, C channels of a head, T packed
tokens, B sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PretrainedConfig

BLOCK_TOKENS = 16


@dataclass(frozen=True, slots=True)
class CacheShape:
    """What the cache must fit: weights that share it have the same."""

    num_layers: int
    num_key_heads: int
    head_size: int
    dtype: torch.dtype

    @classmethod
    def of(cls, config: PretrainedConfig, dtype: torch.dtype) -> CacheShape:
        """Return the shape that a model's configuration asks for."""
        text = config.get_text_config()
        heads: int = text.num_attention_heads
        size: int = getattr(text, "head_dim", None) or text.hidden_size // heads
        key_heads: int = getattr(text, "num_key_value_heads", None) or heads
        return cls(text.num_hidden_layers, key_heads, size, dtype)

    @property
    def bytes_per_token(self) -> int:
        """Memory of one token, over all layers."""
        return 2 * self.num_layers * self.num_key_heads * self.head_size * self.dtype.itemsize


class PagedCache:
    """One tensor of keys and one of values a layer, (S, G, C).

    Args:
        shape: Of the model.
        num_blocks: To hold.
        device: Where.
    """

    def __init__(self, shape: CacheShape, *, num_blocks: int, device: torch.device) -> None:
        self.shape = shape
        self.num_blocks = num_blocks
        size = (num_blocks * BLOCK_TOKENS, shape.num_key_heads, shape.head_size)
        # Zeros and not whatever lies in memory: masked keys are still multiplied by 0.
        self._keys = [
            torch.zeros(size, dtype=shape.dtype, device=device) for _ in range(shape.num_layers)
        ]
        self._values = [torch.zeros_like(keys) for keys in self._keys]

    def write(self, layer: int, slots_T: Tensor, keys_TGC: Tensor, values_TGC: Tensor) -> None:
        """Put keys and values of packed tokens into their slots."""
        self._keys[layer].index_copy_(0, slots_T, keys_TGC)
        self._values[layer].index_copy_(0, slots_T, values_TGC)

    def read(self, layer: int, tables: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values of sequences by their tables of blocks, (B, blocks).

        Returns:
            Two of shape (B, G, blocks * BLOCK_TOKENS, C).
        """
        return self._gather(self._keys[layer], tables), self._gather(self._values[layer], tables)

    def clear(self, blocks: Sequence[int]) -> None:
        """Forget what blocks held: a masked NaN of a sequence before would still be NaN."""
        if not blocks:
            return
        rows = torch.tensor(blocks, device=self._keys[0].device)
        for tensor in (*self._keys, *self._values):
            tensor.view(self.num_blocks, -1).index_fill_(0, rows, 0)

    def copy_block(self, source: int, target: int) -> None:
        """Copy one block, in all layers."""
        of, to = (slice(b * BLOCK_TOKENS, (b + 1) * BLOCK_TOKENS) for b in (source, target))
        for tensor in (*self._keys, *self._values):
            tensor[to] = tensor[of]

    def _gather(self, tensor_SGC: Tensor, tables: Tensor) -> Tensor:
        shape = self.shape
        # Whole blocks are copied at once: a row of this view is one block.
        rows = tensor_SGC.view(self.num_blocks, -1).index_select(0, tables.reshape(-1))
        found = rows.view(len(tables), -1, shape.num_key_heads, shape.head_size)
        return found.transpose(1, 2)
