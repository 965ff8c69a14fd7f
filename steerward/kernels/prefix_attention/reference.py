"""Attention with shared prefixes, as its definition.

Axis letters: T queries, S keys, A query heads, G heads of keys, C channels of a head. T and S are
those of one run inside the loop.
"""

from __future__ import annotations

import torch
from torch import Tensor

from steerward.kernels.prefix_attention.layout import AttentionLayout, QueryRun


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
    """Return ``softmax(cap(scale * q . k)) v`` over the keys that each query sees, run by run.

    ``cap(s) = softcap * tanh(s / softcap)`` (Gemma 2, arXiv:2408.00118, section 2), or s without.
    Everything is fp32 between the loads and the result.
    """
    repeats = query.shape[1] // key.shape[1]
    mixed: list[Tensor] = []
    for run in layout.runs:
        query_ATC = query[0, :, run.start : run.end].float()
        key_ASC = _keys_of(run, key).repeat_interleave(repeats, dim=0)
        value_ASC = _keys_of(run, value).repeat_interleave(repeats, dim=0)
        scores_ATS = (query_ATC @ key_ASC.mT) * scale
        if softcap is not None:
            scores_ATS = softcap * torch.tanh(scores_ATS / softcap)
        is_hidden_TS = ~is_visible(run, key_ASC.shape[1], sliding_window, query.device)
        weights_ATS = scores_ATS.masked_fill(is_hidden_TS, float("-inf")).softmax(dim=-1)
        mixed.append((weights_ATS @ value_ASC).transpose(0, 1))
    mixed_TAC = torch.cat(mixed) if mixed else query[0].transpose(0, 1)
    return mixed_TAC.to(query.dtype).contiguous()[None]


def _keys_of(run: QueryRun, rows: Tensor) -> Tensor:
    """Return the keys or values of a run's sequence, (G, S, C) in fp32."""
    return torch.cat([rows[0, :, start:end] for start, end in (*run.spans, run.own)], dim=1).float()


def is_visible(
    run: QueryRun, num_keys: int, sliding_window: int | None, device: torch.device
) -> Tensor:
    """Return the (T, S) mask of a run; its last query stands at the last key."""
    position_S = torch.arange(num_keys, device=device)
    position_T = position_S[num_keys - (run.end - run.start) :]
    distance_TS = position_T[:, None] - position_S[None, :]
    is_visible_TS = distance_TS >= 0
    if sliding_window is not None:
        is_visible_TS &= distance_TS < sliding_window
    return is_visible_TS
