"""PAMA (arXiv:2508.07768): advantages that move the policy only where every objective agrees.

After the paper's "Noon" clipping no advantage is negative, and Theorem 1 leaves the least of them:
a sample is reinforced by what its worst-served objective approves. No code of the authors is
known, and no source says at which granularity they apply it; the granularities, their weights and
the standardising that the callers do first are ours.

What is refused: one number for the whole batch. A public re-implementation takes each objective's
mean over the batch, then the least of these, and gives that constant to every token. On-policy
``E[grad log pi] = 0``, so such an advantage has no expected gradient at all: the policy is moved
by noise alone. Here a batch decides the objectives' weights only, and samples keep their own
advantages.

A sum of 0 is not Pareto stationarity: it says that a sample is not learned from. With
independent objectives about ``2^-K`` of the samples are.

Axis legend: N samples, T tokens, K objectives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from steerward.protocol.errors import InvalidRequest
from steerward.training.align.grpo.pareto import (
    min_norm_weights,
    nearest_to_zero,
    weights_nearest_to_zero,
)

Granularity = Literal["sample", "token", "batch"]
"""What weights are found for. Theorem 1 is of scalars in front of one common gradient, which is
literally so for tokens, and for samples with a ratio of the whole sequence."""


@dataclass(frozen=True, slots=True)
class Combined:
    """Several objectives' advantages as one."""

    advantages: Tensor
    """(N,), or (N, T) by token; 0 where no objective applies."""
    weights: Tensor
    """On the simplex, 0 for objectives that do not apply: (N, K) or (N, T, K), (K,) by batch."""


def noon(advantages: Tensor) -> Tensor:
    """Return advantages without their negative part; NaN stays.

    ``A = max(A', 0)``, PAMA (arXiv:2508.07768), Noon PPO.
    """
    return advantages.clamp(min=0)


def within_clip(advantages: Tensor, ratios: Tensor, *, epsilon_high: float) -> Tensor:
    """Return ``I(A)``: the advantage where the ratio is not clipped from above, else 0.

    PAMA (arXiv:2508.07768), gradient of Noon PPO. The ratio is the same for all objectives, so
    that weights found before the clip are those found after it wherever anything is left; TRL's
    clipped loss drops the same tokens. Needed to see what is learned from, not to train.

    Args:
        advantages: Not negative; the objectives are its last axis.
        ratios: pi / pi_old, an axis less.
        epsilon_high: Tokens with a ratio above ``1 + epsilon_high`` are dropped.
    """
    return advantages.masked_fill((ratios > 1 + epsilon_high)[..., None], 0.0)


def combine(advantages: Tensor, *, granularity: Granularity = "sample") -> Combined:
    """Return advantages of K objectives as one, by Theorem 1 of PAMA (arXiv:2508.07768).

    Args:
        advantages: (N, K) by sample and batch, (N, T, K) by token; after `noon`, as a rule. NaN
            where an objective does not apply.
        granularity: ``sample`` and ``token`` take ``s* = min_i A_i`` (0 if signs are mixed) of
            each; ``batch`` finds weights by ``min c'Gc``, ``G_ij = a_i.a_j``, and applies them to
            the samples' own advantages.

    Raises:
        InvalidRequest: If the axes do not fit, or an objective has one advantage for all samples.
    """
    if advantages.dim() != (3 if granularity == "token" else 2):
        raise InvalidRequest(
            f"granularity {granularity!r} got advantages with {advantages.dim()} axes; give "
            "(samples, objectives), or (samples, tokens, objectives) by token",
            param="granularity",
        )
    if granularity == "batch":
        return _by_batch(advantages)
    flat_NK = advantages.reshape(-1, advantages.shape[-1])
    combined_N = nearest_to_zero(flat_NK).nan_to_num(nan=0.0)
    return Combined(
        combined_N.reshape(advantages.shape[:-1]),
        _applicable_weights(flat_NK).reshape(advantages.shape),
    )


def refuse_batch_constants(advantages_NK: Tensor) -> None:
    """Refuse objectives that give all samples of a batch one advantage other than 0.

    Raises:
        InvalidRequest: If there is one: its expected gradient is 0.
    """
    if len(advantages_NK) < 2:
        return
    is_constant_K = (advantages_NK == advantages_NK[:1]).all(dim=0) & (advantages_NK[0] != 0)
    if bool(is_constant_K.any()):
        column = int(is_constant_K.nonzero()[0])
        raise InvalidRequest(
            f"objective {column} has the advantage {float(advantages_NK[0, column]):.4g} for all "
            f"{len(advantages_NK)} samples; a constant has no expected gradient, E[grad log pi] = "
            "0: give each sample its own, centred in its group",
            param="advantages",
        )


def _by_batch(advantages_NK: Tensor) -> Combined:
    refuse_batch_constants(advantages_NK)
    # Where an objective does not apply it has no gradient.
    filled_NK = advantages_NK.nan_to_num(nan=0.0).double()
    there = (~advantages_NK.isnan()).any(dim=0).nonzero().flatten()
    weights_K = filled_NK.new_zeros(filled_NK.shape[-1])
    if len(there):
        gram_KK = filled_NK[:, there].T @ filled_NK[:, there]
        weights_K[there] = min_norm_weights(gram_KK)
    combined_N = filled_NK @ weights_K
    return Combined(combined_N.to(advantages_NK.dtype), weights_K.to(advantages_NK.dtype))


def _applicable_weights(advantages_NK: Tensor) -> Tensor:
    """Return weights of each row over the objectives that apply to it; 0 if none does."""
    is_missing_NK = advantages_NK.isnan()
    if not bool(is_missing_NK.any()):
        return weights_nearest_to_zero(advantages_NK)
    weights_NK = torch.zeros_like(advantages_NK)
    # Few patterns: columns apply to tasks, not to single rows.
    patterns, which_N = is_missing_NK.unique(dim=0, return_inverse=True)
    for i, is_missing_K in enumerate(patterns):
        rows = (which_N == i).nonzero().flatten()
        columns = (~is_missing_K).nonzero().flatten()
        if len(columns):
            part = advantages_NK[rows][:, columns]
            weights_NK[rows[:, None], columns] = weights_nearest_to_zero(part)
    return weights_NK
