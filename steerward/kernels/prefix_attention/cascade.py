"""Attention with shared prefixes on a CPU: each span once for all queries that see it.

A run's own keys and each of its spans are attended to by themselves, with the CPU's fused
operator, and merged by their log-sum-exp; exact, and neither keys are copied together nor masks
built. So a prompt before eight candidates is one call and not eight (Hydragen, arXiv:2402.05099;
there for decoding).

Axis letters: A query heads, T queries, S keys, C channels of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from steerward.kernels.prefix_attention.layout import AttentionLayout, Span

# What scaled_dot_product_attention runs on a CPU, with the log-sum-exp that it keeps to itself.
_attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

Rows = Callable[[Span], tuple[Tensor, Tensor]]


def cascade_attention(
    query: Tensor, layout: AttentionLayout, rows: Rows, *, scale: float
) -> Tensor:
    """Return the mixed values, (1, T, A, C).

    Args:
        query: Queries, (1, A, T, C).
        layout: What each run sees. Runs of several queries have as many own keys.
        rows: Returns keys and values of a span, (1, heads of keys, S, C) each.
        scale: Factor on the dot products.
    """
    parts: list[Tensor] = []
    sums: list[Tensor] = []
    for run in layout.runs:
        keys, values = rows(run.own)
        part, log_sum = _attend(
            query[:, :, run.start : run.end],
            keys,
            values,
            0.0,
            run.end - run.start > 1,
            scale=scale,
        )
        parts.append(part.transpose(1, 2))
        sums.append(log_sum)
    # (1, T, A, C), so that heads of one token lie together, as the output projection reads them.
    mixed = torch.cat(parts, dim=1)
    log_sums = torch.cat(sums, dim=2)
    for span, start, end in shared_spans(layout):
        keys, values = rows(span)
        part, log_sum = _attend(query[:, :, start:end], keys, values, 0.0, False, scale=scale)
        before = log_sums[:, :, start:end]
        share = torch.sigmoid(log_sum - before).transpose(1, 2)[..., None]
        mixed[:, start:end].lerp_(part.transpose(1, 2), share.to(mixed.dtype))
        log_sums[:, :, start:end] = torch.logaddexp(before, log_sum)
    return mixed


def shared_spans(layout: AttentionLayout) -> Sequence[tuple[Span, int, int]]:
    """Return each span with the stretch of queries that see it."""
    found: list[tuple[Span, int, int]] = []
    open_at: dict[Span, int] = {}
    for run in layout.runs:
        for span in run.spans:
            at = open_at.get(span)
            if at is not None and found[at][2] == run.start:
                found[at] = (span, found[at][1], run.end)
            else:
                open_at[span] = len(found)
                found.append((span, run.start, run.end))
    return found
