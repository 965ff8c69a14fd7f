"""Attention over a packed batch, registered through transformers' attention interface.

Every backbone family whose layers call that interface computes packed batches unchanged: the
layout travels as a keyword argument of the model's forward. Exact: each token sees what it would
see alone, whatever lies beside it, and whether an earlier batch had computed it.

Axis legend: T packed tokens, S keys, A query heads, C channels of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from steerward.kernels.prefix_attention.cascade import cascade_attention
from steerward.kernels.prefix_attention.layout import AttentionLayout, QueryRun, Span
from steerward.models.packing import PackedBatch

PACKED_ATTENTION = "steerward_packed"


class KeysReady(Exception):
    """Ends the pass of a layer that was only to give keys and values."""


@dataclass(slots=True)
class AttentionPass:
    """One packed batch on its way through the layers."""

    batch: PackedBatch
    layout: AttentionLayout
    only_reads: bool = False
    """Let the last layer return hidden states at the read positions only."""
    only_keys: bool = False
    """Keep keys and values, and end the layer there."""
    keys_values: tuple[Tensor, Tensor] | None = None
    """Those of the whole batch, for a pass in which only read positions are queries."""


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
    if sliding_window is not None and (watched := _watched.get()) is not None:
        watched.of_layers.add(sliding_window)
    if packed.keys_values is not None:
        key, value = packed.keys_values
    else:
        _capture(module, packed.batch, key, value)
    if packed.only_keys:
        packed.keys_values = key, value
        raise KeysReady
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    rows = _Rows(module, packed.batch, key, value)
    if sliding_window is not None and sliding_window >= _longest(packed.layout):
        sliding_window = None
    trains = torch.is_grad_enabled() and query.requires_grad
    if query.device.type == "cpu" and not trains and sliding_window is None and softcap is None:
        return cascade_attention(query, packed.layout, rows, scale=scale), None
    # On a CPU the fused operator's backward takes longer than the plain products.
    is_explicit = softcap is not None or (trains and query.device.type == "cpu")
    runs = packed.layout.runs
    mixed: list[Tensor] = []
    for run, queries in zip(
        runs, query.split([run.end - run.start for run in runs], dim=2), strict=True
    ):
        keys, values = rows.joined(run)
        mask = _mask(run, keys, sliding_window)
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


def _capture(module: nn.Module, batch: PackedBatch, key: Tensor, value: Tensor) -> None:
    """Keep what later batches will see of this layer."""
    for capture in batch.captures:
        part = slice(capture.start, capture.end)
        kept = key[:, :, part].clone(), value[:, :, part].clone()
        capture.keys_values.by_layer[_layer_index(module)] = kept


def _layer_index(module: nn.Module) -> int:
    index = getattr(module, "layer_idx", None)
    if not isinstance(index, int):
        raise NotImplementedError("layers that do not know their index")
    return index


class _Rows:
    """Keys and values of a layer by their rows: those kept from earlier batches come first.

    Rows are cut out once: runs and spans are the same stretches again and again, and where a
    gradient is needed, one split has one concatenation for its gradient.
    """

    def __init__(self, module: nn.Module, batch: PackedBatch, key: Tensor, value: Tensor) -> None:
        self._first = batch.num_cached_tokens
        self._key, self._value = key, value
        self._parts = self._split(batch.layout.runs)
        row = 0
        self._cached: list[tuple[Span, tuple[Tensor, Tensor]]] = []
        for span in batch.cached:
            keys, values = span.keys_values.by_layer[_layer_index(module)]
            part = slice(span.start, span.end)
            place = Span(row, row + span.end - span.start)
            self._cached.append((place, (keys[:, :, part], values[:, :, part])))
            row = place.end

    def __call__(self, span: Span) -> tuple[Tensor, Tensor]:
        """Return the rows of a span, (1, heads of keys, S, C) each."""
        if span in self._parts:
            return self._parts[span]
        if span.start >= self._first:
            part = slice(span.start - self._first, span.end - self._first)
            return self._key[:, :, part], self._value[:, :, part]
        inside = [pair for place, pair in self._cached if _is_within(place, span)]
        self._parts[span] = _joined(inside)
        return self._parts[span]

    def joined(self, run: QueryRun) -> tuple[Tensor, Tensor]:
        """Return all rows that a run sees, in order of their positions."""
        return _joined([self(span) for span in (*run.spans, run.own)])

    def _split(self, runs: Sequence[QueryRun]) -> dict[Span, tuple[Tensor, Tensor]]:
        lengths = [run.end - run.start for run in runs]
        keys, values = (tensor.split(lengths, dim=2) for tensor in (self._key, self._value))
        return {run.own: pair for run, *pair in zip(runs, keys, values, strict=True)}


def _joined(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    if len(pairs) == 1:
        return pairs[0]
    keys, values = zip(*pairs, strict=True)
    return torch.cat(keys, dim=2), torch.cat(values, dim=2)


def _is_within(one: Span, other: Span) -> bool:
    return other.start <= one.start and one.end <= other.end


def _longest(layout: AttentionLayout) -> int:
    """Return the most keys that a query sees."""
    return max(sum(span.end - span.start for span in (*run.spans, run.own)) for run in layout.runs)


def _mask(run: QueryRun, keys: Tensor, sliding_window: int | None) -> Tensor | None:
    """Return the (queries, S) mask of a run, or None where plain causality says it."""
    length, num_keys = run.end - run.start, keys.shape[2]
    window = num_keys if sliding_window is None else sliding_window
    if length == num_keys and num_keys <= window:
        return None
    # Row s of the run stands at position num_keys - length + s.
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
