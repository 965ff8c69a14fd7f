"""The gating network in Triton: one launch per layer.

The first launch gathers the rows, the last one ends in temperature, softmax and scale.
Axis letters: P prompts, K objectives, H hidden, D gate hidden, T packed tokens. Inside a kernel
the inner axis is H whichever layer it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from steerward.kernels.launch import Launch, ceil_div, run
from steerward.kernels.linear_tile import choose_blocks, linear_tile, row_numbers


@triton.jit
def _activate(x, ACTIVATION: tl.constexpr):
    # Comparisons are written so that NaN takes the branch that keeps it; tl.maximum would drop it.
    if ACTIVATION == "relu":
        return tl.where(x < 0.0, 0.0, x)
    else:
        negative = tl.where(x > 0.0, 0.0, x)
        scaled_exp = 1.6732632423543772848170429916717 * (tl.exp(negative) - 1.0)
        return 1.0507009873554804934193349852946 * tl.where(x > 0.0, x, scaled_exp)


# Counts and indices change from batch to batch; a kernel specialised on them would be compiled
# again while serving.
@triton.jit(
    do_not_specialize=["num_prompts", "num_rows"],
    do_not_specialize_on_alignment=["positions_ptr"],
)
def _hidden_layer_kernel(  # noqa: PLR0913 (a kernel has no objects to group arguments in)
    x_ptr,
    positions_ptr,
    weight_ptr,
    bias_ptr,
    out_ptr,
    num_prompts,
    num_rows,
    x_row_stride,
    num_units,
    width,
    ACTIVATION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    prompts_P = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    units_D = tl.program_id(1).to(tl.int64) * BLOCK_K + tl.arange(0, BLOCK_K)
    is_unit_D = units_D < num_units
    rows_P = row_numbers(positions_ptr, prompts_P, num_prompts, num_rows)
    x_PD = linear_tile(
        x_ptr,
        rows_P,
        x_row_stride,
        weight_ptr,
        units_D,
        num_units,
        width,
        BLOCK_N,
        BLOCK_K,
        BLOCK_H,
    )
    bias_D = tl.load(bias_ptr + units_D, mask=is_unit_D, other=0.0).to(tl.float32)
    tl.store(
        out_ptr + prompts_P[:, None] * num_units + units_D[None, :],
        _activate(x_PD + bias_D[None, :], ACTIVATION),
        mask=(prompts_P < num_prompts)[:, None] & is_unit_D[None, :],
    )


@triton.jit(
    do_not_specialize=["num_prompts", "num_rows", "temperature"],
    do_not_specialize_on_alignment=["positions_ptr"],
)
def _output_layer_kernel(  # noqa: PLR0913 (a kernel has no objects to group arguments in)
    x_ptr,
    positions_ptr,
    weight_ptr,
    bias_ptr,
    scale_ptr,
    gates_ptr,
    num_prompts,
    num_rows,
    x_row_stride,
    num_objectives,
    width,
    temperature,
    NORMALISATION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    prompts_P = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    objectives_K = tl.arange(0, BLOCK_K).to(tl.int64)
    is_objective_K = objectives_K < num_objectives
    rows_P = row_numbers(positions_ptr, prompts_P, num_prompts, num_rows)
    x_PK = linear_tile(
        x_ptr,
        rows_P,
        x_row_stride,
        weight_ptr,
        objectives_K,
        num_objectives,
        width,
        BLOCK_N,
        BLOCK_K,
        BLOCK_H,
    )
    bias_K = tl.load(bias_ptr + objectives_K, mask=is_objective_K, other=0.0).to(tl.float32)
    gates_PK = x_PK + bias_K[None, :]
    if NORMALISATION == "softmax":
        logits_PK = tl.where(is_objective_K[None, :], gates_PK / temperature, float("-inf"))
        shares_PK = tl.exp(logits_PK - tl.max(logits_PK, axis=1)[:, None])
        gates_PK = shares_PK / tl.sum(shares_PK, axis=1)[:, None]
    gates_PK *= tl.load(scale_ptr).to(tl.float32)
    tl.store(
        gates_ptr + prompts_P[:, None] * num_objectives + objectives_K[None, :],
        gates_PK,
        mask=(prompts_P < num_prompts)[:, None] & is_objective_K[None, :],
    )


def _layer_arguments(
    x: Tensor, positions_P: Tensor | None, weight: Tensor, bias: Tensor, *, num_prompts: int
) -> dict[str, Tensor | int | float | None]:
    return {
        "x_ptr": x,
        "positions_ptr": positions_P,
        "weight_ptr": weight.contiguous(),
        "bias_ptr": bias.contiguous(),
        "num_prompts": num_prompts,
        "num_rows": x.shape[0],
        "x_row_stride": x.stride(0),
        "width": x.shape[1],
    }


def _plan_hidden_layer(
    x: Tensor,
    positions_P: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    *,
    num_prompts: int,
    activation: str,
) -> tuple[Launch, Tensor]:
    num_units, width = weight.shape
    out_PD = weight.new_empty((num_prompts, num_units))
    blocks = choose_blocks(num_outputs=num_units, width=width, all_outputs=False)
    launch = Launch(
        kernel=_hidden_layer_kernel,
        grid=(ceil_div(num_prompts, blocks.rows), ceil_div(num_units, blocks.outputs)),
        arguments={
            **_layer_arguments(x, positions_P, weight, bias, num_prompts=num_prompts),
            "out_ptr": out_PD,
            "num_units": num_units,
        },
        constants={"ACTIVATION": activation, **blocks.constants()},
        num_warps=blocks.num_warps,
    )
    return launch, out_PD


def plan(
    hidden_TH: Tensor,
    positions_P: Tensor,
    *,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    activation: str,
    normalisation: str,
    temperature: float,
    scale: Tensor,
) -> tuple[list[Launch], Tensor]:
    """Return the launches of one call, none without prompts, and the gates they fill."""
    num_prompts = positions_P.shape[0]
    num_objectives, width = weights[-1].shape
    gates_PK = weights[-1].new_empty((num_prompts, num_objectives))
    if num_prompts == 0:
        return [], gates_PK
    x = hidden_TH if hidden_TH.stride(-1) == 1 else hidden_TH.contiguous()
    positions = positions_P.contiguous()
    launches: list[Launch] = []
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        launch, x = _plan_hidden_layer(
            x, positions, weight, bias, num_prompts=num_prompts, activation=activation
        )
        launches.append(launch)
        positions = None  # from here on row p belongs to prompt p
    blocks = choose_blocks(num_outputs=num_objectives, width=width, all_outputs=True)
    launch = Launch(
        kernel=_output_layer_kernel,
        grid=(ceil_div(num_prompts, blocks.rows),),
        arguments={
            **_layer_arguments(x, positions, weights[-1], biases[-1], num_prompts=num_prompts),
            "scale_ptr": scale,
            "gates_ptr": gates_PK,
            "num_objectives": num_objectives,
            "temperature": float(temperature),
        },
        constants={"NORMALISATION": normalisation, **blocks.constants()},
        num_warps=blocks.num_warps,
    )
    return [*launches, launch], gates_PK


def gating_mlp(
    hidden_TH: Tensor,
    positions_P: Tensor,
    *,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    activation: str,
    normalisation: str,
    temperature: float,
    scale: Tensor,
) -> Tensor:
    """Return what the reference returns; a position outside the packed batch gives a NaN row."""
    launches, gates_PK = plan(
        hidden_TH,
        positions_P,
        weights=weights,
        biases=biases,
        activation=activation,
        normalisation=normalisation,
        temperature=temperature,
        scale=scale,
    )
    run(launches, device_of=hidden_TH)
    return gates_PK
