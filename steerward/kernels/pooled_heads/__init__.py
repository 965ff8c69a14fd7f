"""Rewards of candidates from the hidden states of a packed batch."""

from __future__ import annotations

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
from steerward.kernels.pooled_heads import reference

__all__ = ["pooled_heads"]


def pooled_heads(
    hidden_TH: Tensor,
    positions_N: Tensor,
    weight_KH: Tensor,
    bias_K: Tensor | None = None,
) -> Tensor:
    """Return the reward of every objective for each candidate, fp32.

    ArmoRM (arXiv:2406.12845), stage 1: ``r_k = w_k . h + b_k`` with h the hidden state of the
    candidate's last token. Hidden states are raised to fp32 before anything is multiplied, under
    autocast too.

    Args:
        hidden_TH: Last hidden states of a packed batch, after the final norm; fp32, fp16 or bf16.
        positions_N: Row of each candidate's last token; int64 or int32, repeats allowed.
        weight_KH: Heads, fp32, in the order of the objectives.
        bias_K: Added to each reward, fp32, or None.

    Returns:
        rewards_NK in head scale. The same row gives the same reward in any batch.

    Raises:
        ValueError: If shapes, dtypes or devices do not fit together.
        IndexError: On the CPU, if a position lies outside the packed batch. On CUDA, where
            nobody waits for the device, that candidate's rewards are NaN instead.
    """
    check_matrix("hidden_TH", hidden_TH, dtypes=HIDDEN_DTYPES)
    check_indices("positions_N", positions_N)
    check_weight("weight_KH", weight_KH, width=hidden_TH.shape[1], width_name="hidden_TH")
    if bias_K is not None:
        check_bias("bias_K", bias_K, size=weight_KH.shape[0])
    check_same_device(
        hidden_TH=hidden_TH, positions_N=positions_N, weight_KH=weight_KH, bias_K=bias_K
    )
    if choose("pooled_heads", hidden_TH, weight_KH, bias_K) is Backend.TRITON:
        from steerward.kernels.pooled_heads import kernel

        return kernel.pooled_heads(hidden_TH, positions_N, weight_KH, bias_K)
    with full_precision(hidden_TH):
        return reference.pooled_heads(hidden_TH, positions_N, weight_KH, bias_K)
