"""Attention with shared prefixes on a CPU: each span once for all queries that see it.

A run's own keys and each of its spans are attended to by themselves, with the CPU's fused
operator, and merged by their log-sum-exp; exact, and neither keys are copied together nor masks
built. So a prompt before eight candidates is one call and not eight (Hydragen, arXiv:2402.05099;
there for decoding).

Axis letters: A query heads, T queries, S keys, C channels of a head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steerward.kernels.prefix_attention.layout import AttentionLayout, Span

# What scaled_dot_product_attention runs on a CPU, with the log-sum-exp that it keeps to itself.
_attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


def prefix_attention(
    query: Tensor, key: Tensor, value: Tensor, layout: AttentionLayout, *, scale: float
) -> Tensor:
    """Return what the reference returns, without window and soft cap.

    Runs of several queries must have as many own keys, else `is_possible` says no.
    """
    parts: list[Tensor] = []
    sums: list[Tensor] = []
    for run in layout.runs:
        own = slice(*run.own)
        part, log_sum = _attend(
            query[:, :, run.start : run.end],
            key[:, :, own],
            value[:, :, own],
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
        keys, values = key[:, :, slice(*span)], value[:, :, slice(*span)]
        part, log_sum = _attend(query[:, :, start:end], keys, values, 0.0, False, scale=scale)
        before = log_sums[:, :, start:end]
        share = torch.sigmoid(log_sum - before).transpose(1, 2)[..., None]
        mixed[:, start:end].lerp_(part.transpose(1, 2), share.to(mixed.dtype))
        log_sums[:, :, start:end] = torch.logaddexp(before, log_sum)
    return mixed


def is_possible(layout: AttentionLayout) -> bool:
    """Whether no run and no span is empty, and runs of several queries have as many own keys.

    The operator divides by numbers of rows, and its causality is aligned at the beginnings.
    """
    return bool(layout.runs) and all(
        run.end > run.start
        and run.end - run.start in (1, run.own.end - run.own.start)
        and all(span.end > span.start for span in run.spans)
        for run in layout.runs
    )


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
