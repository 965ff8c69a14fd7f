"""Scores of candidates from their rewards and the gates of their prompts."""

from __future__ import annotations

import torch
from torch import Tensor

from steerward.kernels.aggregate import reference
from steerward.kernels.checks import check_indices, check_matrix, check_same_device, check_weight
from steerward.kernels.dispatch import Backend, choose, full_precision

__all__ = ["aggregate"]


def aggregate(
    rewards_NK: Tensor, gates_PK: Tensor, prompt_index_N: Tensor, transform_KK: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the score of each candidate and the coefficients of each prompt, fp32.

    ArmoRM (arXiv:2406.12845), stage 2. Rewards are first freed of verbosity, ``r' = r @ M``, and
    then weighed by the gate, ``s = sum_j g_j r'_j``. Moving M to the gate gives the same score
    and says how much each raw reward counted::

        c_i = sum_j g_j M_ij  (c = g @ M.T),    s = sum_i c_i r_i

    M is any matrix; it need be neither symmetric nor invertible.

    Args:
        rewards_NK: Raw head outputs, fp32.
        gates_PK: Gates of the prompts, fp32, in any scale.
        prompt_index_N: Prompt of each candidate, a row of gates_PK; int64 or int32.
        transform_KK: Reward transform M, fp32; column k maps raw rewards to r'_k.

    Returns:
        scores_N, comparable between candidates of one prompt, and coefficients_PK, which can be
        negative. A prompt without candidates has coefficients all the same.

    Raises:
        ValueError: If shapes, dtypes or devices do not fit together.
        IndexError: On the CPU, if a prompt index lies outside the gates. On CUDA, where nobody
            waits for the device, that candidate's score is NaN instead.

    Example:
        >>> r = torch.tensor([[0.8, 0.5]]); g = torch.tensor([[0.75, 0.25]])
        >>> aggregate(r, g, torch.tensor([0]), torch.eye(2))[0]
        tensor([0.7250])
    """
    _check(rewards_NK, gates_PK, prompt_index_N, transform_KK)
    if choose("aggregate", rewards_NK, gates_PK, transform_KK) is Backend.TRITON:
        from steerward.kernels.aggregate import kernel

        return kernel.aggregate(rewards_NK, gates_PK, prompt_index_N, transform_KK)
    with full_precision(rewards_NK):
        return reference.aggregate(rewards_NK, gates_PK, prompt_index_N, transform_KK)


def _check(
    rewards_NK: Tensor, gates_PK: Tensor, prompt_index_N: Tensor, transform_KK: Tensor
) -> None:
    check_matrix("rewards_NK", rewards_NK, dtypes=(torch.float32,))
    check_matrix("gates_PK", gates_PK, dtypes=(torch.float32,))
    check_indices("prompt_index_N", prompt_index_N)
    num_candidates, num_objectives = rewards_NK.shape
    check_weight("transform_KK", transform_KK, width=num_objectives, width_name="rewards_NK")
    if gates_PK.shape[1] != num_objectives or transform_KK.shape[0] != num_objectives:
        raise ValueError(
            f"K differs: rewards_NK {tuple(rewards_NK.shape)}, gates_PK {tuple(gates_PK.shape)}, "
            f"transform_KK {tuple(transform_KK.shape)}"
        )
    if prompt_index_N.shape[0] != num_candidates:
        raise ValueError(
            f"N differs: rewards_NK {tuple(rewards_NK.shape)}, "
            f"prompt_index_N {tuple(prompt_index_N.shape)}"
        )
    if num_candidates > 0 and gates_PK.shape[0] == 0:
        raise ValueError(f"{num_candidates} candidates, but gates_PK holds no prompt")
    check_same_device(
        rewards_NK=rewards_NK,
        gates_PK=gates_PK,
        prompt_index_N=prompt_index_N,
        transform_KK=transform_KK,
    )
