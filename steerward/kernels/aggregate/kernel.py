"""Coefficients and scores in Triton: one launch.

The first programs of the grid score candidates, the rest write the coefficients of prompts, so
that a prompt without a candidate is written too. Both compute coefficients with the same tile; a
candidate's are recomputed, which is cheaper than waiting for a first launch.
Axis letters: N candidates, P prompts, K objectives.
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
    do_not_specialize=["num_candidates", "num_prompts", "num_score_programs"],
    do_not_specialize_on_alignment=["prompt_index_ptr"],
)
def _aggregate_kernel(  # noqa: PLR0913 (a kernel has no objects to group arguments in)
    rewards_ptr,
    gates_ptr,
    prompt_index_ptr,
    transform_ptr,
    scores_ptr,
    coefficients_ptr,
    num_candidates,
    num_prompts,
    num_score_programs,
    num_objectives,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    objectives_K = tl.arange(0, BLOCK_K).to(tl.int64)
    is_objective_K = objectives_K < num_objectives
    program = tl.program_id(0).to(tl.int64)
    is_scoring = program < num_score_programs
    # From here on an item is a candidate in a scoring program, and a prompt in the others.
    if is_scoring:
        items_N = program * BLOCK_N + tl.arange(0, BLOCK_N)
        rows_N = row_numbers(prompt_index_ptr, items_N, num_candidates, num_prompts)
    else:
        items_N = (program - num_score_programs) * BLOCK_N + tl.arange(0, BLOCK_N)
        rows_N = row_numbers(None, items_N, num_prompts, num_prompts)
    coefficients_NK = linear_tile(
        gates_ptr,
        rows_N,
        num_objectives,
        transform_ptr,
        objectives_K,
        num_objectives,
        num_objectives,
        BLOCK_N,
        BLOCK_K,
        BLOCK_H,
    )
    offsets_NK = items_N[:, None] * num_objectives + objectives_K[None, :]
    if is_scoring:
        is_candidate_N = items_N < num_candidates
        rewards_NK = tl.load(
            rewards_ptr + offsets_NK,
            mask=is_candidate_N[:, None] & is_objective_K[None, :],
            other=0.0,
        ).to(tl.float32)
        # Padding objectives are dropped after the product, where NaN times zero would stay.
        contributions_NK = tl.where(is_objective_K[None, :], coefficients_NK * rewards_NK, 0.0)
        tl.store(scores_ptr + items_N, tl.sum(contributions_NK, axis=1), mask=is_candidate_N)
    else:
        tl.store(
            coefficients_ptr + offsets_NK,
            coefficients_NK,
            mask=(items_N < num_prompts)[:, None] & is_objective_K[None, :],
        )


def plan(
    rewards_NK: Tensor, gates_PK: Tensor, prompt_index_N: Tensor, transform_KK: Tensor
) -> tuple[list[Launch], tuple[Tensor, Tensor]]:
    """Return the launches of one call, none if it is empty, and the outputs they fill."""
    num_candidates, num_objectives = rewards_NK.shape
    num_prompts = gates_PK.shape[0]
    scores_N = rewards_NK.new_empty((num_candidates,))
    coefficients_PK = gates_PK.new_empty((num_prompts, num_objectives))
    if num_candidates + num_prompts == 0:
        return [], (scores_N, coefficients_PK)
    blocks = choose_blocks(num_outputs=num_objectives, width=num_objectives, all_outputs=True)
    num_score_programs = ceil_div(num_candidates, blocks.rows)
    launch = Launch(
        kernel=_aggregate_kernel,
        grid=(num_score_programs + ceil_div(num_prompts, blocks.rows),),
        arguments={
            "rewards_ptr": rewards_NK.contiguous(),
            "gates_ptr": gates_PK.contiguous(),
            "prompt_index_ptr": prompt_index_N.contiguous(),
            "transform_ptr": transform_KK.contiguous(),
            "scores_ptr": scores_N,
            "coefficients_ptr": coefficients_PK,
            "num_candidates": num_candidates,
            "num_prompts": num_prompts,
            "num_score_programs": num_score_programs,
            "num_objectives": num_objectives,
        },
        constants={**blocks.constants()},
        num_warps=blocks.num_warps,
    )
    return [launch], (scores_N, coefficients_PK)


def aggregate(
    rewards_NK: Tensor, gates_PK: Tensor, prompt_index_N: Tensor, transform_KK: Tensor
) -> tuple[Tensor, Tensor]:
    """Return what the reference returns; a wrong prompt index gives a NaN score."""
    launches, outputs = plan(rewards_NK, gates_PK, prompt_index_N, transform_KK)
    run(launches, device_of=rewards_NK)
    return outputs
