"""The reward transform: a matrix that frees rewards of verbosity.

ArmoRM (arXiv:2406.12845, section 3.2): ``r'_k = r_k - lambda_k * r_v`` with the smallest
``lambda_k`` of a grid for which the rank correlation of ``r'_k`` with the verbosity reward falls
to a threshold over a reference set. As a matrix, ``r' = r @ M``: the identity with the row of
verbosity reduced by ``lambda``; with ``lambda_v = 1`` the column of verbosity is zero.

Rewards of different objectives may differ in spread, which a gate on the simplex cannot make up
for; the columns of M may therefore be scaled so that transformed rewards have spread 1.

Axis legend: N candidates, K objectives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# ArmoRM's public grid: fine near zero, then steps of 0.05. Rewards of two objectives may differ
# in spread, so it goes on past 1.
PENALTY_GRID: tuple[float, ...] = (
    0.0, 0.01, 0.025, 0.05, 0.075, 0.1, 0.125,
    *(round(0.15 + 0.05 * step, 2) for step in range(78)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TransformFit:
    """What was fitted, and how well."""

    transform_KK: Tensor
    penalties: Mapping[str, float]
    """lambda by objective."""
    correlation_before: Mapping[str, float]
    """Rank correlation of the raw reward with the verbosity reward."""
    correlation_after: Mapping[str, float]
    """The same after the transform."""


def fit_transform(
    rewards_NK: Tensor,
    *,
    names: Sequence[str],
    verbosity: str,
    threshold: float = 0.03,
    grid: Sequence[float] = PENALTY_GRID,
    standardise: bool = False,
) -> TransformFit:
    """Fit the penalties on the rewards of a reference set.

    Objectives that correlate negatively with verbosity keep penalty 0: the transform takes
    verbosity away, it never adds any.

    Args:
        rewards_NK: Raw rewards of all responses of the reference set.
        names: Objective names in head order.
        verbosity: Name of the objective to be freed from.
        threshold: Rank correlation at or below which a reward counts as free of verbosity.
        grid: Penalties to try, ascending.
        standardise: Divide each column by the standard deviation that its transformed reward
            has over the reference set.

    Raises:
        ValueError: If an objective stays above the threshold on the whole grid; the message has
            its name and best correlation.
    """
    v = list(names).index(verbosity)
    verbosity_N = rewards_NK[:, v].double()
    transform_KK = torch.eye(len(names), dtype=torch.float64)
    penalties: dict[str, float] = {}
    before: dict[str, float] = {}
    after: dict[str, float] = {}
    for k, name in enumerate(names):
        reward_N = rewards_NK[:, k].double()
        before[name] = rank_correlation(reward_N, verbosity_N)
        if k == v:
            penalties[name], after[name] = 1.0, 0.0
        else:
            penalties[name], after[name] = _smallest_penalty(
                reward_N, verbosity_N, name=name, threshold=threshold, grid=grid
            )
        transform_KK[v, k] -= penalties[name]
    if standardise:
        transform_KK /= (rewards_NK.double() @ transform_KK).std(dim=-2, correction=0).clamp(1e-6)
    return TransformFit(transform_KK.float(), penalties, before, after)


def _smallest_penalty(
    reward_N: Tensor, verbosity_N: Tensor, *, name: str, threshold: float, grid: Sequence[float]
) -> tuple[float, float]:
    best = float("inf")
    for penalty in grid:
        correlation = rank_correlation(reward_N - penalty * verbosity_N, verbosity_N)
        if correlation <= threshold:
            return penalty, correlation
        best = min(best, correlation)
    raise ValueError(
        f"objective {name!r} cannot be freed of verbosity: its lowest rank correlation over "
        f"penalties {grid[0]}..{grid[-1]} is {best:.3f}, threshold {threshold}; raise the "
        "threshold or extend the grid"
    )


def rank_correlation(a_N: Tensor, b_N: Tensor) -> float:
    """Return Spearman's rank correlation; ties get their mean rank; 0 if either is constant."""
    ranks = torch.stack([_ranks(a_N), _ranks(b_N)])
    ranks = ranks - ranks.mean(dim=-1, keepdim=True)
    norms = ranks.norm(dim=-1).prod()
    return float(ranks.prod(dim=0).sum() / norms) if norms > 0 else 0.0


def _ranks(values_N: Tensor) -> Tensor:
    _, inverse, counts = torch.unique(values_N, return_inverse=True, return_counts=True)
    last = counts.cumsum(dim=-1).double()
    return (last - (counts.double() - 1.0) / 2.0)[inverse]
