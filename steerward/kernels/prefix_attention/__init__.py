"""Attention over a packed batch in which sequences share what they have in common."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from steerward.kernels.checks import HIDDEN_DTYPES, check_same_device
from steerward.kernels.dispatch import Backend, choose, full_precision
from steerward.kernels.prefix_attention import cascade, differentiable, reference
from steerward.kernels.prefix_attention.layout import AttentionLayout, QueryRun, Span
from steerward.kernels.prefix_attention.tables import LayoutTables

__all__ = ["AttentionLayout", "LayoutTables", "QueryRun", "Span", "prefix_attention"]


def prefix_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: AttentionLayout,
    tables: LayoutTables | None = None,
    *,
    scale: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Return attention of each run of queries over its shared spans and, causally, its own keys.

    Exact: a query gets what it would get in its sequence alone, up to the order of sums. A span is
    stored once, however many runs see it. Scores, softmax and sums are fp32, under autocast too;
    the kernel rounds the weights to the type of the values before it multiplies the two.

    Args:
        query: Queries, (1, A, T, C), fp32, fp16 or bf16; any strides.
        key: Keys, (1, heads of keys, S, C), of the same type. Heads of keys divide A, and query
            head a takes head ``a // (A // heads)``.
        value: Values, as the keys.
        layout: What each of the T queries sees of the S keys.
        tables: `LayoutTables.build` of the layout, on the device of the query. The kernel reads
            them; made here if missing, which a caller with many layers avoids.
        scale: Factor on the dot products.
        sliding_window: A query sees a key less than this many positions back, itself included.
        softcap: Bound c of the scores before the softmax, ``c * tanh(s / c)``.

    Returns:
        The mixed values, (1, T, A, C), contiguous, in the type of the query.

    Raises:
        ValueError: If shapes, dtypes or devices do not fit together or to the layout, an
            option is out of its range, or the kernel is to run on heads of more than 256 channels.
    """
    _check_tensors(query, key, value)
    _check_layout(query, key, layout, tables)
    _check_options(scale, sliding_window, softcap)
    backend = choose("prefix_attention", query, key, value)
    if backend is Backend.TRITON:
        from steerward.kernels.prefix_attention import kernel

        if tables is None:
            tables = LayoutTables.build(layout).to(query.device)
        return kernel.prefix_attention(
            query, key, value, tables, scale=scale, sliding_window=sliding_window, softcap=softcap
        )
    options = {"sliding_window": sliding_window, "softcap": softcap}
    if torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value)):
        return differentiable.prefix_attention(query, key, value, layout, scale=scale, **options)
    is_plain = sliding_window is None and softcap is None and query.device.type == "cpu"
    if is_plain and cascade.is_possible(layout):
        return cascade.prefix_attention(query, key, value, layout, scale=scale)
    with full_precision(query):
        return reference.prefix_attention(query, key, value, layout, scale=scale, **options)


def _check_tensors(query: Tensor, key: Tensor, value: Tensor) -> None:
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if tensor.ndim != 4 or tensor.shape[0] != 1 or 0 in (tensor.shape[1], tensor.shape[3]):
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, expected (1, heads, tokens, channels)"
            )
        if tensor.dtype not in HIDDEN_DTYPES or tensor.dtype is not query.dtype:
            raise ValueError(
                f"{name} has dtype {tensor.dtype}, expected one of {HIDDEN_DTYPES}, the same as "
                f"the query's {query.dtype}"
            )
    if key.shape != value.shape:
        raise ValueError(f"key has shape {tuple(key.shape)}, but value {tuple(value.shape)}")
    if query.shape[3] != key.shape[3] or query.shape[1] % key.shape[1]:
        raise ValueError(
            f"query has shape {tuple(query.shape)} and key {tuple(key.shape)}: channels must be "
            "equal and the heads of keys divide the heads of queries"
        )
    check_same_device(query=query, key=key, value=value)


def _check_layout(
    query: Tensor, key: Tensor, layout: AttentionLayout, tables: LayoutTables | None
) -> None:
    if query.shape[2] != layout.num_queries or key.shape[2] < layout.num_keys:
        raise ValueError(
            f"query has shape {tuple(query.shape)} and key {tuple(key.shape)}, but the layout has "
            f"{layout.num_queries} queries and reads {layout.num_keys} keys"
        )
    if tables is not None:
        if tables.num_runs != len(layout.runs):
            raise ValueError(
                f"tables have {tables.num_runs} runs, but the layout {len(layout.runs)}"
            )
        check_same_device(query=query, tables=tables.runs)


def _check_options(scale: float, sliding_window: int | None, softcap: float | None) -> None:
    if not math.isfinite(scale):
        raise ValueError(f"scale is {scale}, expected a finite number")
    if sliding_window is not None and sliding_window < 1:
        raise ValueError(f"sliding_window is {sliding_window}, expected at least 1")
    if softcap is not None and not (math.isfinite(softcap) and softcap > 0.0):
        raise ValueError(f"softcap is {softcap}, expected a finite number above 0")
