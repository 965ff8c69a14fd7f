"""The reward heads in Triton: one launch gathers the rows and applies the heads.

Axis letters: N candidates, K objectives, H hidden, T packed tokens.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from steerward.kernels.launch import Launch, ceil_div, run
from steerward.kernels.linear_tile import choose_blocks, linear_tile, row_numbers


# Counts and indices change from batch to batch; a kernel specialised on them would be compiled
# again while serving.
@triton.jit(
    do_not_specialize=["num_candidates", "num_tokens"],
    do_not_specialize_on_alignment=["positions_ptr"],
)
def _pooled_heads_kernel(  # noqa: PLR0913 (a kernel has no objects to group arguments in)
    hidden_ptr,
    positions_ptr,
    weight_ptr,
    bias_ptr,
    rewards_ptr,
    num_candidates,
    num_tokens,
    hidden_row_stride,
    num_objectives,
    width,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    candidates_N = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    objectives_K = tl.program_id(1).to(tl.int64) * BLOCK_K + tl.arange(0, BLOCK_K)
    is_objective_K = objectives_K < num_objectives
    rows_N = row_numbers(positions_ptr, candidates_N, num_candidates, num_tokens)
    rewards_NK = linear_tile(
        hidden_ptr,
        rows_N,
        hidden_row_stride,
        weight_ptr,
        objectives_K,
        num_objectives,
        width,
        BLOCK_N,
        BLOCK_K,
        BLOCK_H,
    )
    if bias_ptr is not None:
        bias_K = tl.load(bias_ptr + objectives_K, mask=is_objective_K, other=0.0).to(tl.float32)
        rewards_NK += bias_K[None, :]
    tl.store(
        rewards_ptr + candidates_N[:, None] * num_objectives + objectives_K[None, :],
        rewards_NK,
        mask=(candidates_N < num_candidates)[:, None] & is_objective_K[None, :],
    )


def plan(
    hidden_TH: Tensor, positions_N: Tensor, weight_KH: Tensor, bias_K: Tensor | None
) -> tuple[list[Launch], Tensor]:
    """Return the launches of one call, none without candidates, and the rewards they fill."""
    num_candidates = positions_N.shape[0]
    num_objectives, width = weight_KH.shape
    rewards_NK = weight_KH.new_empty((num_candidates, num_objectives))
    if num_candidates == 0:
        return [], rewards_NK
    if hidden_TH.stride(-1) != 1:
        hidden_TH = hidden_TH.contiguous()
    blocks = choose_blocks(num_outputs=num_objectives, width=width, all_outputs=False)
    launch = Launch(
        kernel=_pooled_heads_kernel,
        grid=(
            ceil_div(num_candidates, blocks.rows),
            ceil_div(num_objectives, blocks.outputs),
        ),
        arguments={
            "hidden_ptr": hidden_TH,
            "positions_ptr": positions_N.contiguous(),
            "weight_ptr": weight_KH.contiguous(),
            "bias_ptr": None if bias_K is None else bias_K.contiguous(),
            "rewards_ptr": rewards_NK,
            "num_candidates": num_candidates,
            "num_tokens": hidden_TH.shape[0],
            "hidden_row_stride": hidden_TH.stride(0),
            "num_objectives": num_objectives,
            "width": width,
        },
        constants={**blocks.constants()},
        num_warps=blocks.num_warps,
    )
    return [launch], rewards_NK


def pooled_heads(
    hidden_TH: Tensor, positions_N: Tensor, weight_KH: Tensor, bias_K: Tensor | None
) -> Tensor:
    """Return what the reference returns; a position outside the packed batch gives a NaN row."""
    launches, rewards_NK = plan(hidden_TH, positions_N, weight_KH, bias_K)
    run(launches, device_of=hidden_TH)
    return rewards_NK
