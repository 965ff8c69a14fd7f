# ruff: noqa: TID252 (these tests are a package of whichever name the root gives it)
"""Layouts of attention, seeded inputs for them, and the definition once more in float64 numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from steerward.kernels.prefix_attention import AttentionLayout, QueryRun, Span

from .cases import Maker

PROMPT, REPLY = Span(0, 37), Span(37, 50)
LAYOUTS = {
    "empty": AttentionLayout(()),
    "one token": AttentionLayout((QueryRun(0, 1, (), Span(0, 1)),)),
    "single": AttentionLayout((QueryRun(0, 150, (), Span(0, 150)),)),
    "group": AttentionLayout(
        (
            QueryRun(0, 37, (), PROMPT),
            QueryRun(37, 50, (PROMPT,), REPLY),
            QueryRun(50, 51, (PROMPT,), Span(50, 51)),
            QueryRun(51, 190, (PROMPT,), Span(51, 190)),
        )
    ),
    "nested": AttentionLayout(
        (
            QueryRun(0, 37, (), PROMPT),
            QueryRun(37, 50, (PROMPT,), REPLY),
            QueryRun(50, 61, (PROMPT, REPLY), Span(50, 61)),
            QueryRun(61, 70, (Span(0, 20), Span(40, 45), Span(50, 61)), Span(61, 70)),
        )
    ),
    # The last query of each sequence, as in a last layer of which only some rows are read.
    "last queries": AttentionLayout(
        (
            QueryRun(0, 1, (PROMPT,), REPLY),
            QueryRun(1, 2, (PROMPT,), Span(50, 61)),
            QueryRun(2, 5, (), Span(61, 200)),
        )
    ),
    "cached keys behind": AttentionLayout((QueryRun(0, 8, (Span(8, 90), Span(8, 8)), Span(0, 8)),)),
}
OPTIONS = {
    "plain": {},
    "window": {"sliding_window": 9},
    "wide window": {"sliding_window": 70},
    "softcap": {"softcap": 5.0},
    "both": {"sliding_window": 40, "softcap": 1.5},
}


@dataclass(frozen=True, slots=True)
class Inputs:
    query: Tensor
    key: Tensor
    value: Tensor

    def as_tuple(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.query, self.key, self.value


def inputs(
    layout: AttentionLayout,
    *,
    heads: int = 4,
    key_heads: int = 2,
    head_size: int = 16,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> Inputs:
    """Return queries, keys and values as transformers hands them over: tokens first in memory."""
    maker = Maker.seeded(head_size, device)

    def rows(tokens: int, heads: int) -> Tensor:
        return maker.normal(1, tokens, heads, head_size, dtype=dtype).transpose(1, 2)

    keys = layout.num_keys + 3
    return Inputs(rows(layout.num_queries, heads), rows(keys, key_heads), rows(keys, key_heads))


def numpy_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: AttentionLayout,
    *,
    scale: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
) -> np.ndarray:
    """Return the mixed values query by query and head by head, float64."""
    q, k, v = (tensor.cpu().double().numpy()[0] for tensor in (query, key, value))
    mixed = np.full((1, q.shape[1], q.shape[0], q.shape[2]), np.nan)
    for run in layout.runs:
        rows = [row for start, end in (*run.spans, run.own) for row in range(start, end)]
        for row in range(run.start, run.end):
            seen = rows[: len(rows) - (run.end - 1 - row)]
            if sliding_window is not None:
                seen = seen[-sliding_window:]
            for head in range(q.shape[0]):
                key_head = head * k.shape[0] // q.shape[0]
                scores = scale * (k[key_head, seen] @ q[head, row])
                if softcap is not None:
                    scores = softcap * np.tanh(scores / softcap)
                weights = np.exp(scores - scores.max())
                mixed[0, row, head] = weights @ v[key_head, seen] / weights.sum()
    return mixed


@st.composite
def layouts(draw: Any) -> AttentionLayout:
    """Return runs whose spans lie anywhere in 40 rows of keys, alone or shared."""
    runs: list[QueryRun] = []
    rows = st.integers(0, 40)
    start = 0
    for _ in range(draw(st.integers(0, 4))):
        shared = runs[-1].spans if runs and draw(st.booleans()) else ()
        bounds = draw(st.lists(st.tuples(rows, rows), max_size=2))
        spans = (*shared, *(Span(min(pair), max(pair)) for pair in bounds))
        own_start, num_own = draw(rows), draw(st.integers(1, 40))
        end = start + draw(st.integers(0, num_own))
        runs.append(QueryRun(start, end, spans, Span(own_start, own_start + num_own)))
        start = end
    return AttentionLayout(tuple(runs))
