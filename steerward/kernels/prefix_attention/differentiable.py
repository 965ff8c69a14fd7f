"""Attention with shared prefixes where a gradient is needed: plain products, run by run.

On a CPU the fused operator's backward takes longer than these. Rows are cut by one split, whose
gradient is one concatenation; a gradient of many slices would be as many full tensors.

Axis letters: T queries, S keys, A query heads, C channels of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from steerward.kernels.prefix_attention.layout import AttentionLayout, Span
from steerward.kernels.prefix_attention.reference import is_visible


def prefix_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: AttentionLayout,
    *,
    scale: float,
    sliding_window: int | None,
    softcap: float | None,
) -> Tensor:
    """Return what the reference returns; products are in the type of the query."""
    pieces = _Pieces(key, value, layout)
    lengths = [run.end - run.start for run in layout.runs]
    mixed: list[Tensor] = []
    for run, queries in zip(layout.runs, query.split(lengths, dim=2), strict=True):
        keys, values = zip(*(pieces.of(span) for span in (*run.spans, run.own)), strict=True)
        keys_ASC, values_ASC = torch.cat(keys, dim=2)[0], torch.cat(values, dim=2)[0]
        repeats = query.shape[1] // key.shape[1]
        if repeats > 1:
            keys_ASC = keys_ASC.repeat_interleave(repeats, dim=0)
            values_ASC = values_ASC.repeat_interleave(repeats, dim=0)
        is_hidden_TS = ~is_visible(run, keys_ASC.shape[1], sliding_window, query.device)
        bias_TS = torch.zeros(is_hidden_TS.shape, dtype=query.dtype, device=query.device)
        bias_TS = bias_TS.masked_fill(is_hidden_TS, float("-inf"))
        weights_ATS = _weights(queries[0], keys_ASC, bias_TS, scale, softcap)
        mixed.append(torch.bmm(weights_ATS, values_ASC))
    return torch.cat(mixed, dim=1).transpose(0, 1)[None]


class _Pieces:
    """Keys and values by stretches."""

    def __init__(self, key: Tensor, value: Tensor, layout: AttentionLayout) -> None:
        stretches = {span for run in layout.runs for span in (*run.spans, run.own)}
        self._key, self._value = key, value
        self._by_span: dict[Span, tuple[Tensor, Tensor]] = {}
        in_order = sorted(stretches)
        ends = [0, *(span.end for span in in_order)]
        if [span.start for span in in_order] == ends[:-1] and ends[-1] == key.shape[2]:
            lengths = [span.end - span.start for span in in_order]
            pairs = zip(key.split(lengths, dim=2), value.split(lengths, dim=2), strict=True)
            self._by_span = dict(zip(in_order, pairs, strict=True))

    def of(self, span: Span) -> tuple[Tensor, Tensor]:
        """Return the rows of a stretch."""
        if span in self._by_span:
            return self._by_span[span]
        rows = slice(*span)
        return self._key[:, :, rows], self._value[:, :, rows]


def _weights(
    query_ATC: Tensor, keys_ASC: Tensor, bias_TS: Tensor, scale: float, softcap: float | None
) -> Tensor:
    if softcap is None:
        bias_ATS = bias_TS.expand(query_ATC.shape[0], -1, -1)
        return torch.softmax(torch.baddbmm(bias_ATS, query_ATC, keys_ASC.mT, alpha=scale), dim=-1)
    scores_ATS = torch.tanh(query_ATC @ keys_ASC.mT * scale / softcap) * softcap + bias_TS
    return torch.softmax(scores_ATS, dim=-1, dtype=torch.float32).to(query_ATC.dtype)
