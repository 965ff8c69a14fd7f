"""Attention with shared prefixes in Triton: one launch for all runs of a batch.

A program takes some queries of one run and one head, and goes once over the keys that they see,
stretch by stretch. The softmax is summed up online (FlashAttention, arXiv:2205.14135, section
3.1), so parts of the keys need no second pass to be merged.

Axis letters: T queries, S keys, C channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from steerward.kernels.launch import Launch, run
from steerward.kernels.prefix_attention.tables import QUERY_BLOCK, LayoutTables

MAX_HEAD_SIZE = 256
# exp(x) is exp2(x * log2(e)), and the device has exp2 only.
_LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _scores(query_TC, key_SC, scale, softcap):
    """Return the capped scores of a tile in units of log(2)."""
    products_TS = tl.dot(query_TC, tl.trans(key_SC), input_precision="ieee")
    if softcap is None:
        return products_TS * (scale * _LOG2_E)
    else:
        # tanh(x) = 1 - 2 / (exp(2x) + 1), which is right at both ends: 1 - 0 and 1 - 2.
        grown_TS = tl.exp2(products_TS * (2.0 * _LOG2_E * scale / softcap))
        return (softcap * _LOG2_E) * (1.0 - 2.0 / (grown_TS + 1.0))


@triton.jit
def _attend(  # noqa: PLR0913 (a kernel has no objects to group arguments in)
    mixed_TC,
    sums_T,
    peaks_T,
    query_TC,
    positions_T,
    key_ptr,
    value_ptr,
    key_row_stride,
    value_row_stride,
    begin,
    end,
    position,
    scale,
    sliding_window,
    softcap,
    HEAD_SIZE: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_S: tl.constexpr,
    IS_MASKED: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Add keys ``begin:end`` of a stretch to the running softmax; key 0 stands at `position`.

    Without a mask they are whole tiles that every query sees.
    """
    lanes_S = tl.arange(0, BLOCK_S)
    channels_C = tl.arange(0, BLOCK_C)
    is_channel_C = channels_C < HEAD_SIZE
    keys_SC = lanes_S[:, None].to(tl.int64) * key_row_stride + channels_C[None, :]
    values_SC = lanes_S[:, None].to(tl.int64) * value_row_stride + channels_C[None, :]
    for first in range(begin, end, BLOCK_S):
        is_loaded_SC = is_channel_C[None, :]
        if IS_MASKED:
            is_loaded_SC = is_loaded_SC & (first + lanes_S < end)[:, None]
        row = tl.cast(first, tl.int64)
        key_SC = tl.load(key_ptr + row * key_row_stride + keys_SC, mask=is_loaded_SC, other=0.0)
        value_SC = tl.load(
            value_ptr + row * value_row_stride + values_SC, mask=is_loaded_SC, other=0.0
        )
        if UPCAST:
            key_SC = key_SC.to(tl.float32)
            value_SC = value_SC.to(tl.float32)
        scores_TS = _scores(query_TC, key_SC, scale, softcap)
        if IS_MASKED:
            distance_TS = positions_T[:, None] - (position + first + lanes_S)[None, :]
            is_visible_TS = (distance_TS >= 0) & (first + lanes_S < end)[None, :]
            if sliding_window is not None:
                is_visible_TS = is_visible_TS & (distance_TS < sliding_window)
            scores_TS = tl.where(is_visible_TS, scores_TS, float("-inf"))
        raised_T = tl.maximum(peaks_T, tl.max(scores_TS, axis=1))
        # Nothing seen yet: any finite number keeps the weights at 0 instead of NaN.
        level_T = tl.where(raised_T == float("-inf"), 0.0, raised_T)
        weights_TS = tl.exp2(scores_TS - level_T[:, None])
        shrunk_T = tl.exp2(peaks_T - level_T)
        sums_T = sums_T * shrunk_T + tl.sum(weights_TS, axis=1)
        mixed_TC = tl.dot(
            weights_TS.to(value_SC.dtype),
            value_SC,
            mixed_TC * shrunk_T[:, None],
            input_precision="ieee",
        )
        peaks_T = raised_T
    return mixed_TC, sums_T, peaks_T


# Counts and offsets change from batch to batch; a kernel specialised on them would be compiled
# again while serving. Strides are specialised: without their divisibility loads are not vectors.
@triton.jit(
    do_not_specialize=["sliding_window"],
    do_not_specialize_on_alignment=["runs_ptr", "spans_ptr", "blocks_ptr"],
)
def _prefix_attention_kernel(  # noqa: PLR0913 (a kernel has no objects to group arguments in)
    query_ptr,
    key_ptr,
    value_ptr,
    mixed_ptr,
    runs_ptr,
    spans_ptr,
    blocks_ptr,
    query_head_stride,
    query_row_stride,
    key_head_stride,
    key_row_stride,
    value_head_stride,
    value_row_stride,
    queries_per_key_head,
    scale,
    sliding_window,
    softcap,
    HEAD_SIZE: tl.constexpr,
    PARTS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_C: tl.constexpr,
    UPCAST: tl.constexpr,
):
    block = tl.program_id(0).to(tl.int64) // PARTS
    head = tl.program_id(1).to(tl.int64)
    run_ptr = runs_ptr + tl.load(blocks_ptr + block * 2) * 5
    first = tl.load(blocks_ptr + block * 2 + 1) + (tl.program_id(0) % PARTS) * BLOCK_T
    run_start = tl.load(run_ptr)
    run_end = tl.load(run_ptr + 1)
    if first >= run_end:
        return
    first_position = (tl.load(run_ptr + 2) + first - run_start).to(tl.int32)
    last_position = first_position + tl.minimum(run_end - first, BLOCK_T).to(tl.int32) - 1

    rows_T = first + tl.arange(0, BLOCK_T)
    channels_C = tl.arange(0, BLOCK_C)
    is_stored_TC = (rows_T < run_end)[:, None] & (channels_C < HEAD_SIZE)[None, :]
    query_TC = tl.load(
        query_ptr
        + head * query_head_stride
        + rows_T[:, None] * query_row_stride
        + channels_C[None, :],
        mask=is_stored_TC,
        other=0.0,
    )
    if UPCAST:
        query_TC = query_TC.to(tl.float32)
    positions_T = first_position + tl.arange(0, BLOCK_T)
    key_head = head // queries_per_key_head
    key_ptr += key_head * key_head_stride
    value_ptr += key_head * value_head_stride

    mixed_TC = tl.zeros((BLOCK_T, BLOCK_C), dtype=tl.float32)
    sums_T = tl.zeros((BLOCK_T,), dtype=tl.float32)
    peaks_T = tl.full((BLOCK_T,), float("-inf"), dtype=tl.float32)
    position = first_position * 0
    for span in range(tl.load(run_ptr + 3), tl.load(run_ptr + 4)):
        start = tl.load(spans_ptr + span * 2)
        length = (tl.load(spans_ptr + span * 2 + 1) - start).to(tl.int32)
        # Of this stretch, keys begin:full are seen by every query, and begin:end by any.
        begin = position * 0
        full = tl.minimum(length, first_position + 1 - position)
        end = tl.minimum(length, last_position + 1 - position)
        if sliding_window is not None:
            begin = tl.minimum(end, tl.maximum(0, first_position + 1 - sliding_window - position))
            full = tl.where(last_position - position - begin < sliding_window, full, begin)
        full = begin + tl.maximum(0, full - begin) // BLOCK_S * BLOCK_S
        span_key_ptr = key_ptr + start * key_row_stride
        span_value_ptr = value_ptr + start * value_row_stride
        for IS_MASKED in tl.static_range(2):
            mixed_TC, sums_T, peaks_T = _attend(
                mixed_TC,
                sums_T,
                peaks_T,
                query_TC,
                positions_T,
                span_key_ptr,
                span_value_ptr,
                key_row_stride,
                value_row_stride,
                full if IS_MASKED else begin,
                end if IS_MASKED else full,
                position,
                scale,
                sliding_window,
                softcap,
                HEAD_SIZE,
                BLOCK_C,
                BLOCK_S,
                IS_MASKED,
                UPCAST,
            )
        position += length
    tl.store(
        mixed_ptr + (rows_T[:, None] * tl.num_programs(1) + head) * HEAD_SIZE + channels_C[None, :],
        mixed_TC / sums_T[:, None],
        mask=is_stored_TC,
    )


@dataclass(frozen=True, slots=True)
class Blocks:
    """Tile sizes of one launch, its warps and the tiles of keys that are on their way."""

    queries: int
    keys: int
    num_warps: int
    num_stages: int


def choose_blocks(*, channels: int, itemsize: int, capability: int) -> Blocks:
    """Return the tile sizes for heads of this many channels, a power of two.

    As large as registers allow without spilling, and within 99 KiB of shared memory, which all
    devices from compute capability 8.0 on have; 9.0 takes 128 KiB of its 227.
    """
    if itemsize == 4:  # no tensor cores at this precision, and operands take registers
        if channels <= 64:
            return Blocks(queries=32, keys=32, num_warps=4, num_stages=1)
        return Blocks(queries=16, keys=32, num_warps=8, num_stages=1)
    if channels <= 128:
        # The matrix instructions of 9.0 read operands from shared memory: wide tiles pay there.
        keys = 64 if channels <= 64 or capability == 90 else 32
        return Blocks(queries=QUERY_BLOCK, keys=keys, num_warps=8, num_stages=3)
    keys = 32 if capability <= 90 else 16
    return Blocks(queries=64, keys=keys, num_warps=8, num_stages=2)


def plan(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    tables: LayoutTables,
    *,
    scale: float,
    sliding_window: int | None,
    softcap: float | None,
    capability: int,
) -> tuple[list[Launch], Tensor]:
    """Return the launch of one call, none without queries, and the mixed values it fills.

    The compute capability, 90 for 9.0, decides the tile sizes.
    """
    _, num_heads, num_queries, head_size = query.shape
    mixed = query.new_empty((1, num_queries, num_heads, head_size))
    if head_size > MAX_HEAD_SIZE:
        raise ValueError(f"heads have {head_size} channels, the kernel takes {MAX_HEAD_SIZE}")
    if tables.num_blocks == 0:
        return [], mixed
    query, key, value = (
        tensor if tensor.stride(3) == 1 else tensor.contiguous() for tensor in (query, key, value)
    )
    channels = max(16, 1 << (head_size - 1).bit_length())  # a dot has 16 at least
    blocks = choose_blocks(channels=channels, itemsize=query.element_size(), capability=capability)
    parts = QUERY_BLOCK // blocks.queries
    launch = Launch(
        kernel=_prefix_attention_kernel,
        grid=(tables.num_blocks * parts, num_heads),
        arguments={
            "query_ptr": query,
            "key_ptr": key,
            "value_ptr": value,
            "mixed_ptr": mixed,
            "runs_ptr": tables.runs,
            "spans_ptr": tables.spans,
            "blocks_ptr": tables.blocks,
            "query_head_stride": query.stride(1),
            "query_row_stride": query.stride(2),
            "key_head_stride": key.stride(1),
            "key_row_stride": key.stride(2),
            "value_head_stride": value.stride(1),
            "value_row_stride": value.stride(2),
            "queries_per_key_head": num_heads // key.shape[1],
            "scale": float(scale),
            "sliding_window": sliding_window,
            "softcap": None if softcap is None else float(softcap),
        },
        constants={
            "HEAD_SIZE": head_size,
            "PARTS": parts,
            "BLOCK_T": blocks.queries,
            "BLOCK_S": blocks.keys,
            "BLOCK_C": channels,
            # The interpreter multiplies the bits of bf16 numbers, not their values.
            "UPCAST": not isinstance(_prefix_attention_kernel, triton.JITFunction),
        },
        num_warps=blocks.num_warps,
        num_stages=blocks.num_stages,
    )
    return [launch], mixed


def prefix_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    tables: LayoutTables,
    *,
    scale: float,
    sliding_window: int | None,
    softcap: float | None,
) -> Tensor:
    """Return what the reference returns, in the precision of the type of the values."""
    # The interpreter's tensors lie on the CPU.
    major, minor = torch.cuda.get_device_capability(query.device) if query.is_cuda else (8, 0)
    launches, mixed = plan(
        query,
        key,
        value,
        tables,
        scale=scale,
        sliding_window=sliding_window,
        softcap=softcap,
        capability=major * 10 + minor,
    )
    run(launches, device_of=query)
    return mixed
