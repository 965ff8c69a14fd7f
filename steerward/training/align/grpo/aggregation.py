"""From a matrix of rewards to one advantage a sample: the ways to weigh several objectives.

After each reward is standardised, weights say how much it counts, not what a point of one is
worth in points of another. A reward that does not apply to a sample (NaN) is left out of
everything; a sample to which none applies gets 0, and so does a reward that is constant in its
group. Nothing is normalised beyond what the description of a result says.

Axis legend: N samples, K objectives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from steerward.protocol.errors import InvalidDirection, InvalidRequest
from steerward.training.align.grpo.groups import (
    EPSILON,
    Scaling,
    group_advantages,
    whitened,
)
from steerward.training.align.grpo.pama import Combined, combine, noon, refuse_batch_constants


@dataclass(frozen=True, slots=True)
class Aggregated:
    """Advantages of a batch, and what was done to get them."""

    advantages_N: Tensor
    """0 for samples to which no reward applies."""
    metrics: dict[str, float]
    """``frac_nonzero`` at least: the share of samples that are learned from."""
    description: str
    """Which normalisation ran, with its epsilon."""
    weights_K: Tensor | None = None
    """Mean weights that Pareto methods found; None for others."""


class Aggregation(Protocol):
    """Combines the rewards of a whole batch, over all processes."""

    def __call__(self, rewards_NK: Tensor, *, group_size: int, weights_K: Tensor) -> Aggregated:
        """Return one advantage a sample.

        Args:
            rewards_NK: Raw; NaN where a reward does not apply. Groups lie end to end.
            group_size: Samples of a prompt.
            weights_K: One a column; 0 for one that is only logged.

        Raises:
            InvalidRequest: If the samples are not a whole number of groups.
            InvalidDirection: If the weights have no meaning here.
        """
        ...


@dataclass(frozen=True, slots=True)
class SumThenNormalize:
    """The weighted sum, standardised in its group: GRPO (arXiv:2402.03300, section 4.1.2).

    The rewards with the largest spread decide. Also MO-GRPO of Li et al. (arXiv:2503.21819), whose
    rewards are the outputs of one model. Equal to TRL's ``sum_then_normalize``.
    """

    scaling: Scaling = "group"
    """Of the sum."""
    epsilon: float = EPSILON

    def __call__(self, rewards_NK: Tensor, *, group_size: int, weights_K: Tensor) -> Aggregated:
        """Return one advantage a sample; see `Aggregation`."""
        sums_N = _weighted_sum(rewards_NK, weights_K)
        advantages_N1 = group_advantages(
            sums_N[:, None], group_size=group_size, scaling=self.scaling, epsilon=self.epsilon
        )
        text = f"weighted sum, centred in groups of {group_size}, "
        return _aggregated(advantages_N1[:, 0], text + _divided(self.scaling, self.epsilon))


@dataclass(frozen=True, slots=True)
class NormalizeThenSum:
    """Each reward standardised in its group, then their weighted sum.

    With whitening GDPO (arXiv:2601.05242), equal to TRL's ``normalize_then_sum``:

        A = sum_k w_k (r_k - mean_g r_k) / (std_g r_k + eps);   (A - mean_b A) / (std_b A + eps)

    Without it MO-GRPO of Ichihara et al. (arXiv:2509.22047), where a prompt on which more
    objectives differ has larger advantages.
    """

    whiten: bool = True
    """Whether the sums are standardised over the batch."""
    scaling: Scaling | tuple[Scaling, ...] = "group"
    """Of each reward before the sum: one for all, or one a column in order. ``batch`` and ``none``
    spare rare binary rewards the tiny deviations of their groups."""
    epsilon: float = EPSILON

    def __call__(self, rewards_NK: Tensor, *, group_size: int, weights_K: Tensor) -> Aggregated:
        """Return one advantage a sample; see `Aggregation`."""
        advantages_NK = group_advantages(
            rewards_NK, group_size=group_size, scaling=self.scaling, epsilon=self.epsilon
        )
        sums_N = _weighted_sum(advantages_NK, weights_K)
        text = f"each reward centred in groups of {group_size}, "
        text += f"{_divided(self.scaling, self.epsilon)}; weighted sum"
        if self.whiten:
            sums_N = whitened(sums_N, epsilon=self.epsilon)
            text += f", whitened over the batch (ddof 1, epsilon {self.epsilon:g})"
        return _aggregated(sums_N, text)


def gdpo() -> NormalizeThenSum:
    """Return GDPO's aggregation (arXiv:2601.05242)."""
    return NormalizeThenSum()


def mo_grpo() -> NormalizeThenSum:
    """Return MO-GRPO's aggregation (Ichihara et al., arXiv:2509.22047)."""
    return NormalizeThenSum(whiten=False)


@dataclass(frozen=True, slots=True)
class SoftMin:
    """Between the mean of the objectives and the least: RVPO (arXiv:2605.05750).

        A = -(1/k) log sum_i p_i exp(-k Z_i),    p_i = w_i / sum w

    with Z each reward standardised in its group. ``k`` towards 0 gives the weighted mean, towards
    infinity PAMA's least. Weights as shares are ours, the paper has ``1/K``; so is `sharpness`'s
    default. A value is never above the weighted mean, so advantages of a group no longer add up
    to 0.
    """

    sharpness: float = 1.0
    """The paper's k; above 0."""
    noon: bool = False
    """Whether negative advantages count as 0 first, as PAMA's do."""
    whiten: bool = False
    """Whether the result is standardised over the batch."""
    scaling: Scaling | tuple[Scaling, ...] = "group"
    epsilon: float = EPSILON

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sharpness) and self.sharpness > 0):
            raise InvalidRequest(
                f"sharpness {self.sharpness} is not above 0 and finite; for the mean take "
                "NormalizeThenSum, for the least Min",
                param="sharpness",
            )

    def __call__(self, rewards_NK: Tensor, *, group_size: int, weights_K: Tensor) -> Aggregated:
        """Return one advantage a sample; see `Aggregation`."""
        _refuse_negative(weights_K)
        advantages_NK = group_advantages(
            rewards_NK, group_size=group_size, scaling=self.scaling, epsilon=self.epsilon
        )
        if self.noon:
            advantages_NK = noon(advantages_NK)
        soft_N = _soft_least(advantages_NK, weights_K, sharpness=self.sharpness)
        text = f"each reward centred in groups of {group_size}, "
        text += f"{_divided(self.scaling, self.epsilon)}{'; Noon' if self.noon else ''}; "
        text += f"soft minimum with k {self.sharpness:g}"
        if self.whiten:
            soft_N = whitened(soft_N, epsilon=self.epsilon)
            text += f", whitened over the batch (ddof 1, epsilon {self.epsilon:g})"
        return _aggregated(soft_N, text)


@dataclass(frozen=True, slots=True)
class Min:
    """The least of the objectives, of each sample: PAMA (arXiv:2508.07768), Theorem 1.

    A group in which one objective is constant is not learned from, as the theorem has it: that
    objective approves of nothing. Only pushes up are left, so the policy's entropy falls faster
    than with GRPO; keep a KL penalty. Standardising and `divide_by_weights` are ours.
    """

    noon: bool = True
    """Whether negative advantages count as 0 first, the paper's "Noon"."""
    divide_by_weights: bool = False
    """Whether advantages are divided by their weights before they are compared: an objective with
    a larger weight is then the least more often. Without it weights are equal, or 0."""
    scaling: Scaling | tuple[Scaling, ...] = "group"
    """``none`` compares raw magnitudes: the reward with the smallest spread then decides."""
    epsilon: float = EPSILON

    def __call__(self, rewards_NK: Tensor, *, group_size: int, weights_K: Tensor) -> Aggregated:
        """Return one advantage a sample; see `Aggregation`."""
        advantages_NK, text = _pareto_advantages(
            self, rewards_NK, group_size=group_size, weights_K=weights_K
        )
        combined = combine(advantages_NK, granularity="sample")
        return _pareto(combined, advantages_NK, text + "; PAMA's least objective of each sample")


@dataclass(frozen=True, slots=True)
class Gram:
    """Weights for the whole batch by products of advantages: PAMA's bound on vectors, ours.

    ``c = argmin c'Gc`` on the simplex, ``G_ij = a_i.a_j``, and ``A = sum_i c_i a_i``. It learns
    from samples on which objectives disagree, where `Min` learns nothing.
    """

    noon: bool = True
    """Whether negative advantages count as 0 first, the paper's "Noon"."""
    divide_by_weights: bool = False
    """As in `Min`."""
    scaling: Scaling | tuple[Scaling, ...] = "group"
    """As in `Min`."""
    epsilon: float = EPSILON

    def __call__(self, rewards_NK: Tensor, *, group_size: int, weights_K: Tensor) -> Aggregated:
        """Return one advantage a sample; see `Aggregation`."""
        advantages_NK, text = _pareto_advantages(
            self, rewards_NK, group_size=group_size, weights_K=weights_K
        )
        combined = combine(advantages_NK, granularity="batch")
        return _pareto(combined, advantages_NK, text + "; PAMA's weights of the batch")


def _pareto_advantages(
    how: Min | Gram, rewards_NK: Tensor, *, group_size: int, weights_K: Tensor
) -> tuple[Tensor, str]:
    """Return advantages to compare, NaN in columns that are only logged, and what was done."""
    _refuse_negative(weights_K)
    counts_K = weights_K > 0
    if not how.divide_by_weights and len(weights_K[counts_K].unique()) > 1:
        raise InvalidDirection(
            f"weights {weights_K.tolist()} differ, and PAMA has none; make them equal, or 0 for "
            "columns that are only logged, or set divide_by_weights",
            param="weights",
        )
    advantages_NK = group_advantages(
        rewards_NK, group_size=group_size, scaling=how.scaling, epsilon=how.epsilon
    )
    refuse_batch_constants(advantages_NK)
    text = f"each reward centred in groups of {group_size}, {_divided(how.scaling, how.epsilon)}"
    if how.noon:
        advantages_NK = noon(advantages_NK)
        text += "; Noon"
    if how.divide_by_weights:
        advantages_NK = advantages_NK / weights_K
        text += "; divided by weights"
    return advantages_NK.masked_fill(~counts_K, torch.nan), text


def _pareto(combined: Combined, advantages_NK: Tensor, text: str) -> Aggregated:
    is_there_N = (~advantages_NK.isnan()).any(dim=-1)
    weights = combined.weights
    if weights.dim() > 1:
        weights = weights[is_there_N].mean(dim=0) if bool(is_there_N.any()) else weights.sum(dim=0)
    return _aggregated(combined.advantages, text, weights_K=weights)


def _aggregated(values_N: Tensor, text: str, *, weights_K: Tensor | None = None) -> Aggregated:
    advantages_N = values_N.nan_to_num(nan=0.0)
    share = float((advantages_N != 0).float().mean())
    return Aggregated(advantages_N, {"frac_nonzero": share}, text, weights_K)


def _weighted_sum(values_NK: Tensor, weights_K: Tensor) -> Tensor:
    """Return the weighted sum of what applies; NaN where nothing does."""
    sums_N = (values_NK * weights_K).nansum(dim=-1)
    # What is only logged says nothing of whether there is something to learn from.
    is_missing_NK = values_NK.isnan() | (weights_K == 0)
    return sums_N.masked_fill(is_missing_NK.all(dim=-1), torch.nan)


def _soft_least(values_NK: Tensor, weights_K: Tensor, *, sharpness: float) -> Tensor:
    """Return RVPO's soft minimum of what applies, in float64 on the way; NaN where nothing does.

    With little sharpness a logarithm near 0 is divided by it: float32 has no digits left there.
    """
    is_there_NK = ~values_NK.isnan() & (weights_K > 0)
    shares_NK = torch.where(is_there_NK, weights_K.double(), 0.0)
    shares_NK = shares_NK / shares_NK.sum(dim=-1, keepdim=True)
    exponents_NK = torch.where(is_there_NK, -sharpness * values_NK.double(), 0.0)
    soft_N = -torch.logsumexp(exponents_NK + shares_NK.log(), dim=-1) / sharpness
    return soft_N.to(values_NK.dtype).masked_fill(~is_there_NK.any(dim=-1), torch.nan)


def _refuse_negative(weights_K: Tensor) -> None:
    if bool((weights_K < 0).any()):
        raise InvalidDirection(
            f"weights {weights_K.tolist()} have a negative one, which has no least; let the "
            "reward function turn its sign",
            param="weights",
        )


def _divided(scaling: Scaling | tuple[Scaling, ...], epsilon: float) -> str:
    names = [scaling] if isinstance(scaling, str) else list(scaling)
    told = ", ".join("by nothing" if name == "none" else f"by the {name}'s std" for name in names)
    return f"divided {told} (ddof 1, epsilon {epsilon:g})"
