"""Attention of one decoding step over the paged cache, through transformers' interface.

A step holds runs of prompts that are being read, then one token of each sequence that is being
drawn, packed in one row. Exact: each token sees its own sequence and nothing else.

Axis legend: T packed tokens, B sequences, A query heads, G heads of keys, C channels of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from steerward.models.windows import note_window, register_attention
from steerward.policy.local.cache import BLOCK_TOKENS, PagedCache

PAGED_ATTENTION = "steerward_paged"
WATCHED_ATTENTION = "steerward_paged_watched"
"""The same, under which `watched_windows` sees what masks would hold."""


@dataclass(frozen=True, slots=True)
class PromptRun:
    """Tokens of one sequence whose keys and values a step computes."""

    begin: int
    end: int
    """Place in the packed row."""
    first_position: int
    """Position of the first one; what lies before is in the cache already."""
    table_1: Tensor
    """Blocks of the sequence, (1, blocks)."""


@dataclass(frozen=True, slots=True)
class StepLayout:
    """Who sees what in a step."""

    cache: PagedCache
    slots_T: Tensor
    """Where keys and values of each token go."""
    runs: Sequence[PromptRun]
    decode_begin: int
    """First of the single tokens; the rest of the row is theirs."""
    tables_B: Tensor
    """Blocks of the sequences of the single tokens, (B, blocks), padded with their own."""
    lengths_B: Tensor
    """Tokens of these sequences, with the single one."""


def paged_attention(  # noqa: PLR0913 (the keywords are those of transformers' interface)
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    step: StepLayout,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Return attention of a step's tokens, (1, T, A, C), and None in place of weights.

    Keys and values of the step are written to the cache on the way.

    Raises:
        NotImplementedError: If the layer asks for what paged attention does not do.
    """
    unsupported = (attention_mask, softcap, s_aux, position_bias)
    if any(option is not None for option in unsupported) or dropout:
        raise NotImplementedError("masks, soft caps, attention sinks, position biases and dropout")
    layer = getattr(module, "layer_idx", None)
    if not isinstance(layer, int):
        raise NotImplementedError("layers that do not know their index")
    note_window(sliding_window)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    step.cache.write(layer, step.slots_T, key[0].transpose(0, 1), value[0].transpose(0, 1))
    mixed = torch.empty_like(query[0].transpose(0, 1))
    for run in step.runs:
        part = slice(run.begin, run.end)
        out = _of_run(run, step, layer, query[:, :, part], key, value, scale, sliding_window)
        mixed[part] = out[0].transpose(0, 1)
    if step.decode_begin < query.shape[2]:
        mixed[step.decode_begin :] = _of_single_tokens(
            step, layer, query[0, :, step.decode_begin :], scale, sliding_window
        )
    return mixed[None], None


def _of_run(
    run: PromptRun,
    step: StepLayout,
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    window: int | None,
) -> Tensor:
    count = run.end - run.begin
    length = run.first_position + count
    if run.first_position == 0:
        part = slice(run.begin, run.end)
        keys, values = key[:, :, part], value[:, :, part]
    else:
        keys, values = (found[:, :, :length] for found in step.cache.read(layer, run.table_1))
    if window is not None and window >= length:
        window = None
    visible = None
    if run.first_position or window is not None:
        seen = torch.arange(length, device=query.device)
        asking = torch.arange(run.first_position, length, device=query.device)[:, None]
        visible = seen <= asking
        if window is not None:
            visible &= seen > asking - window
    return scaled_dot_product_attention(
        query,
        keys,
        values,
        attn_mask=visible,
        is_causal=visible is None,
        scale=scale,
        enable_gqa=True,
    )


def _of_single_tokens(
    step: StepLayout, layer: int, query_ABC: Tensor, scale: float, window: int | None
) -> Tensor:
    keys, values = step.cache.read(layer, step.tables_B)
    num_sequences, key_heads, length, _ = keys.shape
    seen = torch.arange(length, device=query_ABC.device)
    ends_B1 = step.lengths_B[:, None]
    visible = seen < ends_B1
    if window is not None:
        visible &= seen >= ends_B1 - window
    # Query heads that share keys stand side by side as if they were tokens: keys stay as they
    # are, and one call does for all.
    query = query_ABC.transpose(0, 1).reshape(num_sequences, key_heads, -1, query_ABC.shape[-1])
    mixed = scaled_dot_product_attention(
        query, keys, values, attn_mask=visible[:, None, None], scale=scale
    )
    return mixed.reshape(num_sequences, -1, query_ABC.shape[-1])


def slot_of(table: Sequence[int], position: int) -> int:
    """Return the slot of a position of a sequence."""
    return table[position // BLOCK_TOKENS] * BLOCK_TOKENS + position % BLOCK_TOKENS


register_attention(PAGED_ATTENTION, paged_attention, watched=WATCHED_ATTENTION)
