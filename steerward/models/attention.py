"""Attention over a packed batch, registered through transformers' attention interface.

Every backbone family whose layers call that interface computes packed batches unchanged: the
layout travels as a keyword argument of the model's forward. Exact: each token sees what it would
see alone, whatever lies beside it, and whether an earlier batch had computed it.

Axis legend: T packed tokens, A query heads, C channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from steerward.kernels.prefix_attention import AttentionLayout, LayoutTables, prefix_attention
from steerward.models.packing import PackedBatch
from steerward.models.windows import note_window, register_attention

PACKED_ATTENTION = "steerward_packed"
WATCHED_ATTENTION = "steerward_watched"
"""The same, under which `watched_windows` sees what masks would hold."""


class KeysReady(Exception):
    """Ends the pass of a layer that was only to give keys and values."""


@dataclass(slots=True)
class AttentionPass:
    """One packed batch on its way through the layers."""

    batch: PackedBatch
    only_reads: bool = False
    """Let the last layer return hidden states at the read positions only."""
    only_keys: bool = False
    """Keep keys and values, and end the layer there."""
    keys_values: tuple[Tensor, Tensor] | None = None
    """Those of the whole batch: queries are the read positions only."""

    def layout_and_tables(self) -> tuple[AttentionLayout, LayoutTables | None]:
        """Return what the queries of this pass see."""
        batch = self.batch
        if self.keys_values is None:
            return batch.layout, batch.tables
        return batch.read_layout, batch.read_tables


def packed_attention(  # noqa: PLR0913 (the keywords are those of transformers' interface)
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed: AttentionPass,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Return attention of each run of the layout over what it sees.

    Args:
        module: The attention layer; its causality and its index are looked at.
        query: Queries, (1, A, T, C).
        key: Keys, (1, heads of keys, T, C).
        value: Values, as the keys.
        attention_mask: None; the layout says it all.
        packed: The batch and what this pass is for.
        scaling: Factor on the dot products; ``C ** -0.5`` if None.
        dropout: Must be 0, scoring has none.
        sliding_window: Most keys back that a query sees, itself included.
        softcap: Bound of the scores before the softmax (Gemma 2).
        s_aux: Attention sinks, not supported.
        position_bias: Learned biases, not supported.

    Returns:
        The mixed values, (1, T, A, C), and None in place of attention weights.

    Raises:
        NotImplementedError: If the layer asks for what packed attention does not do.
    """
    if not getattr(module, "is_causal", True):
        raise NotImplementedError("the backbone attends in both directions; it must be causal")
    if attention_mask is not None or s_aux is not None or position_bias is not None or dropout:
        raise NotImplementedError("masks, attention sinks, position biases and dropout")
    note_window(sliding_window)
    if packed.keys_values is not None:
        key, value = packed.keys_values
    else:
        _capture(module, packed.batch, key, value)
    if packed.only_keys:
        packed.keys_values = key, value
        raise KeysReady
    key, value = _with_cached(module, packed.batch, key, value)
    layout, tables = packed.layout_and_tables()
    is_wide = sliding_window is None or sliding_window >= layout.longest
    mixed = prefix_attention(
        query,
        key,
        value,
        layout,
        tables,
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        sliding_window=None if is_wide else sliding_window,
        softcap=softcap,
    )
    return mixed, None


def _capture(module: nn.Module, batch: PackedBatch, key: Tensor, value: Tensor) -> None:
    """Keep what later batches will see of this layer."""
    for capture in batch.captures:
        part = slice(capture.start, capture.end)
        kept = key[:, :, part].clone(), value[:, :, part].clone()
        capture.keys_values.by_layer[_layer_index(module)] = kept


def _with_cached(
    module: nn.Module, batch: PackedBatch, key: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the keys and values that a batch sees: those of earlier batches, then its own."""
    if not batch.cached:
        return key, value
    keys: list[Tensor] = []
    values: list[Tensor] = []
    for span in batch.cached:
        kept_key, kept_value = span.keys_values.by_layer[_layer_index(module)]
        keys.append(kept_key[:, :, span.start : span.end])
        values.append(kept_value[:, :, span.start : span.end])
    return torch.cat((*keys, key), dim=2), torch.cat((*values, value), dim=2)


def _layer_index(module: nn.Module) -> int:
    index = getattr(module, "layer_idx", None)
    if not isinstance(index, int):
        raise NotImplementedError("layers that do not know their index")
    return index


register_attention(PACKED_ATTENTION, packed_attention, watched=WATCHED_ATTENTION)
