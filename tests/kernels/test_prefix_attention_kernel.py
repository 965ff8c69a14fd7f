# ruff: noqa: TID252 (these tests are a package of whichever name the root gives it)
from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steerward.kernels.prefix_attention import (
    AttentionLayout,
    LayoutTables,
    QueryRun,
    Span,
    kernel,
    prefix_attention,
)
from steerward.kernels.prefix_attention.reference import prefix_attention as reference

from .attention_cases import LAYOUTS, OPTIONS, inputs, layouts, numpy_attention
from .cases import DTYPES, Maker, dtype_name, kernel_path
from .tolerances import assert_matches_rounded


def _check(
    tensors: tuple[torch.Tensor, ...],
    layout: AttentionLayout,
    *,
    tables: LayoutTables | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
) -> torch.Tensor:
    options: dict[str, Any] = {
        "scale": tensors[0].shape[3] ** -0.5,
        "sliding_window": sliding_window,
        "softcap": softcap,
    }
    with kernel_path("prefix_attention"):
        mixed = prefix_attention(*tensors, layout, tables, **options)
    # The reference in fp32, so that only one side is rounded.
    expected = reference(*(tensor.cpu().float() for tensor in tensors), layout, **options)
    assert mixed.dtype is tensors[0].dtype
    assert mixed.is_contiguous()
    assert_matches_rounded(mixed, expected)
    return mixed


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        *((torch.float32, options) for options in OPTIONS.values()),
        *((dtype, OPTIONS["both"]) for dtype in DTYPES[1:]),
    ],
    ids=[*OPTIONS, *map(dtype_name, DTYPES[1:])],
)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_mixed_values_match_the_reference(
    device: str, dtype: torch.dtype, layout: AttentionLayout, options: dict[str, Any]
) -> None:
    tensors = inputs(layout, heads=2, key_heads=1, dtype=dtype, device=device).as_tuple()
    _check(tensors, layout, **options)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("head_size", [1, 16, 24, 64, 80, 128, 256])
def test_any_head_size_matches_the_reference(
    device: str, dtype: torch.dtype, head_size: int
) -> None:
    layout = LAYOUTS["group"]
    tensors = inputs(
        layout, heads=2, key_heads=1, head_size=head_size, dtype=dtype, device=device
    ).as_tuple()
    _check(tensors, layout)


@pytest.mark.parametrize(("heads", "key_heads"), [(1, 1), (3, 3), (6, 2), (4, 1)])
def test_query_heads_share_the_heads_of_keys(device: str, heads: int, key_heads: int) -> None:
    layout = LAYOUTS["nested"]
    _check(inputs(layout, heads=heads, key_heads=key_heads, device=device).as_tuple(), layout)


def test_any_strides_match_the_reference(device: str) -> None:
    layout, maker = LAYOUTS["nested"], Maker.seeded(0, device)
    rows = layout.num_keys
    fused = maker.normal(1, rows, 3, 2, 16).transpose(1, 3)  # (1, A, 3, T, C)
    heads_first, channels_first = maker.normal(1, 2, rows, 16), maker.normal(1, 2, 16, rows).mT
    wide = maker.normal(1, 2, rows, 40)[..., 3:19]
    for query, key, value in (
        (fused[:, :, 0], fused[:, :, 1], fused[:, :, 2]),
        (heads_first, channels_first, wide),
        (wide, heads_first, channels_first),
    ):
        _check((query, key, value), layout)


def test_tables_made_once_serve_every_layer(device: str) -> None:
    layout = LAYOUTS["group"]
    tables = LayoutTables.build(layout).to(torch.device(device))
    for head_size in (16, 24):
        tensors = inputs(layout, head_size=head_size, device=device).as_tuple()
        _check(tensors, layout, tables=tables)


def test_nan_stays_in_the_runs_that_see_it(device: str) -> None:
    layout = LAYOUTS["group"]
    query, key, value = inputs(layout, device=device).as_tuple()
    key[0, :, 50], value[0, :, 50] = float("nan"), float("nan")
    value[0, :, layout.num_keys :] = float("nan")  # rows that nobody sees
    with kernel_path("prefix_attention"):
        mixed = prefix_attention(query, key, value, layout, scale=0.3)
    assert mixed[0, 50].isnan().all()
    assert mixed[0, :50].isfinite().all()
    assert mixed[0, 51:].isfinite().all()


def test_scores_beyond_the_range_of_exp_match_the_reference(device: str) -> None:
    layout = LAYOUTS["nested"]
    query, key, value = inputs(layout, dtype=torch.float16, device=device).as_tuple()
    for options in ({}, {"sliding_window": 9}, {"softcap": 5.0}):
        _check((query * 20.0, key * 20.0, value), layout, **options)


@settings(deadline=None, database=None, max_examples=15)
@given(layout=layouts(), sliding_window=st.none() | st.integers(1, 60))
@pytest.mark.interpreter
def test_any_layout_matches_the_reference(
    layout: AttentionLayout, sliding_window: int | None
) -> None:
    tensors = inputs(layout, heads=2, key_heads=1).as_tuple()
    _check(tensors, layout, sliding_window=sliding_window)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("head_size", [64, 128, 256])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_device_matches_float64(
    dtype: torch.dtype, head_size: int, options: dict[str, Any]
) -> None:
    layout = AttentionLayout(
        (
            QueryRun(0, 300, (), Span(0, 300)),
            QueryRun(300, 470, (Span(0, 300),), Span(300, 470)),
            QueryRun(470, 471, (Span(0, 300),), Span(300, 420)),
        )
    )
    tensors = inputs(layout, head_size=head_size, dtype=dtype, device="cuda").as_tuple()
    scale = head_size**-0.5
    mixed = prefix_attention(*tensors, layout, scale=scale, **options)
    assert_matches_rounded(mixed, numpy_attention(*tensors, layout, scale=scale, **options))


def test_heads_wider_than_the_kernel_takes_are_refused() -> None:
    layout = LAYOUTS["one token"]
    with pytest.raises(ValueError, match="heads have 257 channels, the kernel takes 256"):
        kernel.plan(
            *inputs(layout, head_size=257).as_tuple(),
            LayoutTables.build(layout),
            scale=1.0,
            sliding_window=None,
            softcap=None,
            capability=80,
        )


@pytest.mark.parametrize("channels", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize("capability", [80, 86, 89, 90, 100, 120])
def test_tiles_of_queries_divide_the_blocks_of_the_tables(
    channels: int, itemsize: int, capability: int
) -> None:
    blocks = kernel.choose_blocks(channels=channels, itemsize=itemsize, capability=capability)
    assert kernel.QUERY_BLOCK % blocks.queries == 0


@pytest.mark.parametrize(("name", "launches"), [("empty", 0), ("one token", 1), ("nested", 1)])
def test_one_launch_whatever_the_number_of_runs(name: str, launches: int) -> None:
    layout = LAYOUTS[name]
    planned, mixed = kernel.plan(
        *inputs(layout).as_tuple(),
        LayoutTables.build(layout),
        scale=1.0,
        sliding_window=None,
        softcap=None,
        capability=80,
    )
    assert len(planned) == launches
    assert mixed.shape == (1, layout.num_queries, 4, 16)
