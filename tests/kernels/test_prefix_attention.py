# ruff: noqa: TID252 (these tests are a package of whichever name the root gives it)
from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steerward.kernels.dispatch import Backend, override
from steerward.kernels.prefix_attention import (
    AttentionLayout,
    LayoutTables,
    QueryRun,
    Span,
    cascade,
    prefix_attention,
    reference,
)

from .attention_cases import LAYOUTS, OPTIONS, inputs, layouts, numpy_attention
from .cases import DTYPES, dtype_name
from .tolerances import assert_matches_rounded


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
def test_the_definition_matches_float64_numpy(
    layout: AttentionLayout, options: dict[str, Any], dtype: torch.dtype
) -> None:
    tensors = inputs(layout, dtype=dtype).as_tuple()
    options = {"sliding_window": None, "softcap": None, **options}
    mixed = reference.prefix_attention(*tensors, layout, scale=0.3, **options)
    assert_matches_rounded(mixed, numpy_attention(*tensors, layout, scale=0.3, **options))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
def test_mixed_values_match_float64_numpy(
    layout: AttentionLayout, options: dict[str, Any], dtype: torch.dtype
) -> None:
    tensors = inputs(layout, dtype=dtype).as_tuple()
    mixed = prefix_attention(*tensors, layout, scale=0.3, **options)
    assert mixed.dtype is dtype
    assert mixed.is_contiguous()
    assert_matches_rounded(mixed, numpy_attention(*tensors, layout, scale=0.3, **options))


@pytest.mark.parametrize(("heads", "key_heads"), [(1, 1), (3, 3), (6, 2), (4, 1)])
def test_query_heads_share_the_heads_of_keys(heads: int, key_heads: int) -> None:
    layout = LAYOUTS["nested"]
    tensors = inputs(layout, heads=heads, key_heads=key_heads).as_tuple()
    mixed = prefix_attention(*tensors, layout, scale=0.3)
    assert_matches_rounded(mixed, numpy_attention(*tensors, layout, scale=0.3))


@settings(deadline=None, database=None, max_examples=50)
@given(layout=layouts(), sliding_window=st.none() | st.integers(1, 60))
def test_any_layout_matches_float64_numpy(
    layout: AttentionLayout, sliding_window: int | None
) -> None:
    tensors = inputs(layout, heads=2, key_heads=1).as_tuple()
    options: dict[str, Any] = {"scale": 0.3, "sliding_window": sliding_window}
    mixed = prefix_attention(*tensors, layout, **options)
    assert_matches_rounded(mixed, numpy_attention(*tensors, layout, **options))


@pytest.mark.parametrize("layout", [LAYOUTS[name] for name in LAYOUTS if name != "empty"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_gradients_are_those_of_the_definition(
    layout: AttentionLayout, options: dict[str, Any]
) -> None:
    options = {"sliding_window": None, "softcap": None, **options}
    gradients: list[list[torch.Tensor]] = []
    for function in (prefix_attention, reference.prefix_attention):
        tensors = [tensor.requires_grad_() for tensor in inputs(layout).as_tuple()]
        mixed = function(*tensors, layout, scale=0.3, **options)
        loss = (mixed * torch.arange(mixed.numel()).reshape(mixed.shape).cos()).sum()
        gradients.append(list(torch.autograd.grad(loss, tensors)))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "is_possible"),
    [(name, name in ("group", "nested", "one token", "single")) for name in LAYOUTS],
)
def test_the_cascade_takes_what_the_fused_operator_can(name: str, is_possible: bool) -> None:
    assert cascade.is_possible(LAYOUTS[name]) is is_possible


def test_a_span_is_one_call_for_all_that_see_it() -> None:
    prompt, reply = Span(0, 37), Span(37, 50)
    assert cascade.shared_spans(LAYOUTS["nested"]) == [
        (prompt, 37, 61),
        (reply, 50, 61),
        (Span(0, 20), 61, 70),
        (Span(40, 45), 61, 70),
        (Span(50, 61), 61, 70),
    ]


def test_gradients_reach_queries_keys_and_values() -> None:
    layout = LAYOUTS["group"]
    tensors = [tensor.requires_grad_() for tensor in inputs(layout).as_tuple()]
    with override(None) as choices:
        prefix_attention(*tensors, layout, scale=0.3).sum().backward()
    assert choices == [("prefix_attention", Backend.REFERENCE)]
    assert all(tensor.grad is not None for tensor in tensors)


def test_autocast_does_not_lower_the_precision() -> None:
    layout = LAYOUTS["nested"]
    tensors = inputs(layout).as_tuple()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = prefix_attention(*tensors, layout, scale=0.3)
    assert torch.equal(mixed, prefix_attention(*tensors, layout, scale=0.3))


def test_tables_hold_runs_stretches_and_blocks() -> None:
    layout = AttentionLayout(
        (
            QueryRun(0, 130, (Span(5, 9), Span(9, 9), Span(9, 12)), Span(20, 150)),
            QueryRun(130, 132, (Span(5, 12),), Span(12, 20)),
        )
    )
    tables = LayoutTables.build(layout)
    assert (tables.num_runs, tables.num_blocks) == (2, 3)
    assert tables.runs.view(2, 5).tolist() == [[0, 130, 7, 0, 2], [130, 132, 13, 2, 3]]
    assert tables.spans.view(-1, 2).tolist() == [[5, 12], [20, 150], [5, 20]]
    assert tables.blocks.view(-1, 2).tolist() == [[0, 0], [0, 128], [1, 130]]


def test_tables_move_in_one_piece() -> None:
    tables = LayoutTables.build(LAYOUTS["nested"])
    assert tables.to(torch.device("cpu")) is tables
    moved = tables.to(torch.device("meta"))
    assert (moved.num_runs, moved.num_blocks) == (tables.num_runs, tables.num_blocks)
    assert moved.runs.untyped_storage().size() == moved.spans.untyped_storage().size()


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([QueryRun(1, 2, (), Span(0, 2))], r"run 0 has queries 1:2, .* ends at 0"),
        (
            [QueryRun(0, 2, (), Span(0, 2)), QueryRun(3, 4, (), Span(0, 2))],
            r"run 1 has queries 3:4, .* ends at 2",
        ),
        ([QueryRun(0, 3, (), Span(0, 2))], r"run 0 has 3 queries, .* only 0:2"),
        ([QueryRun(0, 0, (), Span(2, 2))], r"run 0 has 0 queries, .* only 2:2"),
        ([QueryRun(0, 1, (Span(4, 3),), Span(0, 1))], r"run 0 has keys 4:3"),
        ([QueryRun(0, 1, (Span(-1, 3),), Span(0, 1))], r"run 0 has keys -1:3"),
    ],
)
def test_layout_that_does_not_add_up_is_refused(runs: list[QueryRun], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AttentionLayout(tuple(runs))


_LAYOUT = AttentionLayout((QueryRun(0, 2, (), Span(1, 3)),))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": torch.zeros(4, 2, 8)}, r"query has shape \(4, 2, 8\)"),
        ({"query": torch.zeros(2, 4, 2, 8)}, r"query has shape \(2, 4, 2, 8\)"),
        ({"query": torch.zeros(1, 4, 2, 8).double()}, r"query has dtype torch.float64"),
        ({"key": torch.zeros(1, 2, 3, 8).half()}, r"key has dtype torch.float16.*float32"),
        ({"key": torch.zeros(1, 2, 4, 8)}, r"key has shape \(1, 2, 4, 8\), but value"),
        ({"query": torch.zeros(1, 3, 2, 8)}, r"\(1, 3, 2, 8\) and key \(1, 2, 3, 8\): channels"),
        ({"query": torch.zeros(1, 4, 2, 9)}, r"\(1, 4, 2, 9\) and key \(1, 2, 3, 8\): channels"),
        ({"query": torch.zeros(1, 4, 3, 8)}, r"\(1, 4, 3, 8\).* 2 queries and reads 3 keys"),
        (
            {"key": torch.zeros(1, 2, 2, 8), "value": torch.zeros(1, 2, 2, 8)},
            r"key \(1, 2, 2, 8\).* reads 3 keys",
        ),
        ({"query": torch.zeros(1, 4, 2, 8, device="meta")}, r"different devices.*'query': 'meta'"),
        ({"tables": LayoutTables.build(LAYOUTS["group"])}, r"tables have 4 runs, .* layout 1"),
        (
            {"tables": LayoutTables.build(_LAYOUT).to(torch.device("meta"))},
            r"different devices.*'tables': 'meta'",
        ),
        ({"scale": float("nan")}, r"scale is nan"),
        ({"sliding_window": 0}, r"sliding_window is 0"),
        ({"softcap": 0.0}, r"softcap is 0.0"),
        ({"softcap": float("inf")}, r"softcap is inf"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    arguments = {
        "query": torch.zeros(1, 4, 2, 8),
        "key": torch.zeros(1, 2, 3, 8),
        "value": torch.zeros(1, 2, 3, 8),
        "layout": _LAYOUT,
        "scale": 1.0,
    }
    with pytest.raises(ValueError, match=message):
        prefix_attention(**{**arguments, **change})
