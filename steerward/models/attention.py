"""Attention over a packed batch, registered through transformers' attention interface.

Every backbone family whose layers call that interface computes packed batches unchanged: the
layout travels as a keyword argument of the model's forward. Exact: each segment sees what it
would see alone, causally itself and fully its prefix.

Axis legend: T packed tokens, S tokens of a segment, L keys a segment sees, A query heads,
C channels of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from steerward.models.packing import PackedBatch, Segment

PACKED_ATTENTION = "steerward_packed"


@dataclass(frozen=True, slots=True)
class Windows:
    """Sliding windows and chunks of attention that forward passes asked for, in tokens."""

    of_masks: set[int] = field(default_factory=set[int])
    """What the masks were to hold."""
    of_layers: set[int] = field(default_factory=set[int])
    """What the layers passed on, and packed attention keeps."""


_watched: ContextVar[Windows | None] = ContextVar("watched", default=None)


@contextmanager
def watched_windows() -> Iterator[Windows]:
    """Collect the windows that forward passes in this context ask for."""
    windows = Windows()
    token = _watched.set(windows)
    try:
        yield windows
    finally:
        _watched.reset(token)


def packed_attention(  # noqa: PLR0913 (the keywords are those of transformers' interface)
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed_batch: PackedBatch,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Return attention of each segment over itself and its prefix.

    Args:
        module: The attention layer; only its causality is looked at.
        query: Queries, (1, A, T, C).
        key: Keys, (1, heads of keys, T, C).
        value: Values, as the keys.
        attention_mask: None; the layout says it all.
        packed_batch: Layout of the T tokens.
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
    if sliding_window is not None and (watched := _watched.get()) is not None:
        watched.of_layers.add(sliding_window)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # On a CPU the fused operator's backward takes longer than the plain products.
    trains_on_cpu = torch.is_grad_enabled() and query.requires_grad and query.device.type == "cpu"
    is_explicit = softcap is not None or trains_on_cpu
    # Segments lie end to end: one split, whose gradient is one concatenation.
    lengths = [segment.end - segment.start for segment in packed_batch.segments]
    parts = [tensor.split(lengths, dim=2) for tensor in (query, key, value)]
    seen: dict[int, tuple[Tensor, Tensor]] = {}
    mixed: list[Tensor] = []
    for segment, queries, keys, values in zip(packed_batch.segments, *parts, strict=True):
        seen[segment.start] = (keys, values)
        if segment.prefix_start != segment.prefix_end:
            prefix_keys, prefix_values = seen[segment.prefix_start]
            keys = torch.cat((prefix_keys, keys), dim=2)
            values = torch.cat((prefix_values, values), dim=2)
        mask = _mask(segment, keys, sliding_window)
        if is_explicit:
            mixed.append(_explicit(queries, keys, values, mask, scale, softcap))
            continue
        mixed.append(
            scaled_dot_product_attention(
                queries,
                keys,
                values,
                attn_mask=mask,
                is_causal=mask is None,
                scale=scale,
                enable_gqa=query.shape[1] != key.shape[1],
            )
        )
    return torch.cat(mixed, dim=2).transpose(1, 2), None


def _mask(segment: Segment, keys: Tensor, sliding_window: int | None) -> Tensor | None:
    """Return the (S, L) mask of a segment, or None where plain causality says it."""
    length, num_keys = segment.end - segment.start, keys.shape[2]
    window = num_keys if sliding_window is None else sliding_window
    if length == num_keys and num_keys <= window:
        return None
    # Row s of the segment stands at position num_keys - length + s.
    rows = torch.arange(num_keys - length, num_keys, device=keys.device)[:, None]
    columns = torch.arange(num_keys, device=keys.device)[None, :]
    return (columns <= rows) & (columns > rows - window)


def _explicit(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    scale: float,
    softcap: float | None,
) -> Tensor:
    """Attention as plain products, with Gemma 2's soft cap that no fused operator has."""
    repeats = query.shape[1] // keys.shape[1]
    if repeats > 1:
        keys = keys.repeat_interleave(repeats, dim=1)
        values = values.repeat_interleave(repeats, dim=1)
    if mask is None:
        size = query.shape[2]
        mask = torch.ones(size, size, dtype=torch.bool, device=query.device).tril()
    bias = torch.zeros(mask.shape, dtype=query.dtype, device=query.device)
    bias = bias.masked_fill(~mask, float("-inf"))
    if softcap is None:
        scores = torch.baddbmm(
            bias.expand(query.shape[1], -1, -1), query[0], keys[0].mT, alpha=scale
        )
        weights = torch.softmax(scores, dim=-1)
    else:
        scores = torch.tanh(query[0] @ keys[0].mT * scale / softcap) * softcap + bias
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.bmm(weights, values[0])[None]


def _no_mask(*_: Any, local_size: int | None = None, **__: Any) -> None:
    """Build no mask: the layout stands in for it."""
    if local_size is not None and (watched := _watched.get()) is not None:
        watched.of_masks.add(local_size)


AttentionInterface.register(PACKED_ATTENTION, packed_attention)
AttentionMaskInterface.register(PACKED_ATTENTION, _no_mask)
