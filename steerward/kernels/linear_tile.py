"""The tile that all three ops share: gathered rows times a weight, transposed, in fp32.

Every op here is a short, wide product: few rows, few outputs, a long inner axis. Tensor cores
would round to TF32, and the tiles of a dot (16 by 16 at least) are too few programs for so few
outputs. So the tile keeps one fp32 partial sum per (row, output, lane) in registers and adds the
lanes once, at the end.
Operands are loaded in the three-dimensional shape of the sums: Triton then gives load and sum one
layout, instead of passing every operand through shared memory.

Axis letters, for this tile only: N rows, K outputs, H inner axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

# Partial sums per program: 64 registers in each of the at most 256 threads, which leaves room for
# the operands. Shared memory holds only changes of layout and the last reduction, some KiB.
_MAX_PARTIAL_SUMS = 16_384
_PARTIAL_SUMS_PER_THREAD = 16
_MAX_WARPS = 8
_MAX_TILE_ROWS = 4
_MAX_TILE_OUTPUTS = 4
_MIN_LANES = 16


@dataclass(frozen=True, slots=True)
class Blocks:
    """Tile sizes of one launch, and its warps."""

    rows: int
    outputs: int
    lanes: int
    num_warps: int

    def constants(self) -> dict[str, int]:
        """Return the tile sizes by the names that the kernels give them."""
        return {"BLOCK_N": self.rows, "BLOCK_K": self.outputs, "BLOCK_H": self.lanes}


def choose_blocks(*, num_outputs: int, width: int, all_outputs: bool) -> Blocks:
    """Return the tile sizes for a weight of (num_outputs, width).

    They depend on the weight alone and never on the number of rows: a row is then reduced in the
    same order alone and in any batch.

    Args:
        num_outputs: Rows of the weight.
        width: Inner axis of the weight.
        all_outputs: One program sees every output of its rows (a softmax or a sum follows).
            Otherwise outputs are split, so that one row already occupies many multiprocessors.
    """
    outputs = _next_power_of_two(num_outputs)
    if not all_outputs:
        outputs = min(_MAX_TILE_OUTPUTS, outputs)
    rows = 1 if all_outputs else _MAX_TILE_ROWS
    lanes = max(_MIN_LANES, _MAX_PARTIAL_SUMS // (rows * outputs))
    lanes = min(lanes, _next_power_of_two(width))
    if all_outputs:
        rows = max(1, min(_MAX_TILE_ROWS, _MAX_PARTIAL_SUMS // (outputs * lanes)))
    threads = rows * outputs * lanes // _PARTIAL_SUMS_PER_THREAD
    num_warps = max(1, min(_MAX_WARPS, threads // 32))
    return Blocks(rows=rows, outputs=outputs, lanes=lanes, num_warps=num_warps)


def _next_power_of_two(count: int) -> int:
    return 1 << (count - 1).bit_length()


@triton.jit
def row_numbers(indices_ptr, offsets_N, num_offsets, num_rows):
    """Return the int64 row of each offset, or -1 where there is none to read.

    Without indices the row is the offset itself.
    """
    rows_N = offsets_N.to(tl.int64)
    if indices_ptr is not None:
        rows_N = tl.load(indices_ptr + rows_N, mask=rows_N < num_offsets, other=-1).to(tl.int64)
    return tl.where((rows_N >= 0) & (rows_N < num_rows), rows_N, -1)


@triton.jit
def linear_tile(  # noqa: PLR0913 (a kernel has no objects to group arguments in)
    x_ptr,
    rows_N,
    x_row_stride,
    weight_ptr,
    outputs_K,
    num_outputs,
    width,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """Return ``x[rows] @ weight[outputs].T`` as fp32 (BLOCK_N, BLOCK_K); int64 rows and outputs.

    A row of -1 is not read and becomes NaN: a wrong index is then an error of its own item
    further up, and neither foreign memory nor a plausible number.
    """
    sums_NKH = tl.zeros((BLOCK_N, BLOCK_K, BLOCK_H), dtype=tl.float32)
    is_row_N = rows_N >= 0
    is_output_K = outputs_K < num_outputs
    x_rows_N = x_ptr + rows_N * x_row_stride
    weight_rows_K = weight_ptr + outputs_K * width
    for start in range(0, width, BLOCK_H):
        lanes_H = start + tl.arange(0, BLOCK_H)
        is_lane_H = lanes_H < width
        x_NKH = tl.load(
            x_rows_N[:, None, None] + lanes_H[None, None, :],
            mask=is_row_N[:, None, None] & is_lane_H[None, None, :],
            other=0.0,
        ).to(tl.float32)
        weight_NKH = tl.load(
            weight_rows_K[None, :, None] + lanes_H[None, None, :],
            mask=is_output_K[None, :, None] & is_lane_H[None, None, :],
            other=0.0,
        ).to(tl.float32)
        sums_NKH += x_NKH * weight_NKH
    return tl.where(is_row_N[:, None], tl.sum(sums_NKH, axis=2), float("nan"))
