"""From rewards and gates to the score, and to what each objective contributed.

Axis legend: N candidates, P prompts, K objectives.
"""

from __future__ import annotations

import torch
from torch import Tensor

from steerward.kernels.aggregate import aggregate


def preference_scores(
    rewards_NK: Tensor,
    gates_PK: Tensor,
    *,
    transform_KK: Tensor,
    prompt_index_N: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the score of each candidate and the coefficients of its raw rewards.

    ArmoRM (arXiv:2406.12845, stage 2). The gates weigh the transformed rewards,
    ``s = sum_k g_k * (r @ M)_k``. Moving the transform to the gates gives the same score and
    tells how much each raw reward counted:

        c = g @ M.T,    s = sum_k c_k * r_k

    Args:
        rewards_NK: Raw rewards, before the transform.
        gates_PK: Gates of each prompt.
        transform_KK: Reward transform M; column k maps raw rewards to the k-th transformed one.
        prompt_index_N: Row of `gates_PK` for each candidate; its own row if None.

    Returns:
        scores_N, comparable only between candidates of one prompt, and coefficients_PK, which
        may be negative.

    Raises:
        ValueError: If K differs between the arguments.

    Example:
        >>> r = torch.tensor([[0.8, 0.5]]); g = torch.tensor([[0.75, 0.25]])
        >>> preference_scores(r, g, transform_KK=torch.eye(2))[0]
        tensor([0.7250])
    """
    if prompt_index_N is None:
        prompt_index_N = torch.arange(rewards_NK.shape[0], device=rewards_NK.device)
    return aggregate(rewards_NK, gates_PK, prompt_index_N, transform_KK)
