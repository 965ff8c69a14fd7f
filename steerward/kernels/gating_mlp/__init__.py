"""Gates of prompts from the hidden states of a packed batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor

from steerward.kernels.checks import (
    HIDDEN_DTYPES,
    check_bias,
    check_indices,
    check_matrix,
    check_same_device,
    check_weight,
)
from steerward.kernels.dispatch import Backend, choose, full_precision
from steerward.kernels.gating_mlp import reference

__all__ = ["Activation", "Normalisation", "gating_mlp"]

Activation = Literal["relu", "selu"]
Normalisation = Literal["softmax", "none"]


def gating_mlp(
    hidden_TH: Tensor,
    positions_P: Tensor,
    *,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    activation: Activation,
    normalisation: Normalisation,
    temperature: float,
    scale: Tensor,
) -> Tensor:
    """Return the gate of every objective for each prompt, fp32.

    ArmoRM (arXiv:2406.12845), stage 2: an MLP on the hidden state h at the gating position,
    ``x = W_L a(... a(W_1 h + b_1) ...) + b_L``, then ``g = scale * softmax(x / temperature)``
    over the objectives. Everything is fp32 after the load of h, under autocast too.

    Args:
        hidden_TH: Last hidden states of a packed batch, after the final norm; fp32, fp16 or bf16.
        positions_P: Gating position of each prompt, a row of hidden_TH; int64 or int32.
        weights: One (out, in) fp32 matrix per layer, at least one; the last has K rows.
        biases: One (out,) fp32 vector per layer.
        activation: Follows every layer but the last.
        normalisation: "softmax", or "none" for ``g = scale * x`` without temperature.
        temperature: Divides x before the softmax; above 0.
        scale: One element; stays on the device.

    Returns:
        gates_PK. With "softmax" each row is at least 0 and sums to `scale`.

    Raises:
        ValueError: If shapes, dtypes or devices do not fit together, or an option is unknown.
        IndexError: On the CPU, if a position lies outside the packed batch. On CUDA, where
            nobody waits for the device, that prompt's gates are NaN instead.
    """
    check_matrix("hidden_TH", hidden_TH, dtypes=HIDDEN_DTYPES)
    check_indices("positions_P", positions_P)
    _check_layers(hidden_TH, weights, biases)
    _check_options(activation, normalisation, temperature, scale)
    named = {f"weights[{i}]": weight for i, weight in enumerate(weights)}
    named |= {f"biases[{i}]": bias for i, bias in enumerate(biases)}
    check_same_device(hidden_TH=hidden_TH, positions_P=positions_P, scale=scale, **named)
    if choose("gating_mlp", hidden_TH, *weights, *biases, scale) is Backend.TRITON:
        from steerward.kernels.gating_mlp import kernel

        implementation = kernel.gating_mlp
    else:
        implementation = reference.gating_mlp
    with full_precision(hidden_TH):
        return implementation(
            hidden_TH,
            positions_P,
            weights=weights,
            biases=biases,
            activation=activation,
            normalisation=normalisation,
            temperature=temperature,
            scale=scale,
        )


def _check_layers(hidden_TH: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
    if len(weights) == 0 or len(weights) != len(biases):
        raise ValueError(
            f"a gate needs at least one layer and one bias per weight, got {len(weights)} weights "
            f"and {len(biases)} biases"
        )
    width, width_name = hidden_TH.shape[1], "hidden_TH"
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        check_weight(f"weights[{i}]", weight, width=width, width_name=width_name)
        check_bias(f"biases[{i}]", bias, size=weight.shape[0])
        width, width_name = weight.shape[0], f"layer {i}"


def _check_options(activation: str, normalisation: str, temperature: float, scale: Tensor) -> None:
    if activation not in get_args(Activation):
        raise ValueError(f"activation is {activation!r}, expected one of {get_args(Activation)}")
    if normalisation not in get_args(Normalisation):
        raise ValueError(
            f"normalisation is {normalisation!r}, expected one of {get_args(Normalisation)}"
        )
    if not (math.isfinite(temperature) and temperature > 0.0):
        raise ValueError(f"temperature is {temperature}, expected a finite number above 0")
    if scale.numel() != 1 or not scale.is_floating_point():
        raise ValueError(
            f"scale has shape {tuple(scale.shape)} and dtype {scale.dtype}, expected one "
            "floating-point element"
        )
