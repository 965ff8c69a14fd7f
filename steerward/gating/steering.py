"""Weights and directions over named objectives, applied to rewards that are already there.

No forward pass: the same rewards can be read by any number of directions.

Axis legend: N candidates, K objectives, V directions.
"""

from __future__ import annotations

from torch import Tensor


def direction_scores(
    rewards_NK: Tensor,
    directions_VK: Tensor,
    *,
    reference_mean_K: Tensor | None = None,
    reference_std_K: Tensor | None = None,
) -> Tensor:
    """Return the dot product of rewards with each unit direction.

    DPA (arXiv:2402.18571, section 2): ``R = v . r``, which needs all components of r on one
    scale. Given the reference moments, rewards are standardised first; without them they are
    taken raw.

    Args:
        rewards_NK: Raw rewards.
        directions_VK: Unit vectors, zero for objectives that a direction does not name.
        reference_mean_K: Mean reward over the checkpoint's reference set.
        reference_std_K: Standard deviation over the same set.

    Returns:
        Scores (N, V), dimensionless if standardised, else in reward units.
    """
    if reference_mean_K is not None and reference_std_K is not None:
        rewards_NK = (rewards_NK - reference_mean_K) / reference_std_K
    return rewards_NK @ directions_VK.T


def weighted_coefficients(weights_K: Tensor, transform_KK: Tensor) -> Tensor:
    """Return the coefficients of raw rewards when weights take the place of the gates.

    ``c = w @ M.T``; the weighted score is ``sum_k c_k * r_k``.
    """
    return weights_K @ transform_KK.T
