"""One ridge regression an objective: stage 1 of ArmoRM (arXiv:2406.12845) as a pure function.

Preference pairs may take part: a pair whose category is about an objective adds a row that asks
for the chosen response to have more of it, by a margin. The head stays one linear map in the
unit of its ratings.

Axis legend: N rated responses, P pairs, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steerward.gating.transform import rank_correlation
from steerward.protocol.errors import DatasetRefused

# A few pairs beside many ratings must not count like hundreds of ratings each.
_MOST_PAIR_WEIGHT = 3.0


@dataclass(frozen=True, slots=True)
class PairRows:
    """Pairs that are about an objective."""

    differences_PH: Tensor
    """Vector of the chosen response minus that of the rejected one."""
    held_out_P: Tensor
    weight: float
    """Weight of all pairs together, as a multiple of that of all ratings; a single pair counts
    at most as much as 3 ratings."""
    margin: float
    """By how much the chosen response should have more, in standard deviations of the labels."""

    def part(self, mask_P: Tensor) -> PairRows:
        """Return the pairs of a mask."""
        return replace(
            self, differences_PH=self.differences_PH[mask_P], held_out_P=self.held_out_P[mask_P]
        )

    def row_weight(self, num_ratings: int) -> float:
        """Return how many ratings one pair counts as."""
        pairs = max(1, len(self.differences_PH))
        return min(self.weight * num_ratings / pairs, _MOST_PAIR_WEIGHT)


@dataclass(frozen=True, slots=True)
class HeadFit:
    """One fitted head and how it did on held-out prompts."""

    weight_H: Tensor
    """Fitted on all rows."""
    bias: float
    selection_weight_H: Tensor
    """Fitted without the held-out rows: what later steps may judge those by."""
    selection_bias: float
    report: dict[str, float | int]


def fit_head(
    last_NH: Tensor,
    labels_N: Tensor,
    *,
    held_out_N: Tensor,
    weights_N: Tensor,
    alphas: Sequence[float],
    name: str,
    pairs: PairRows | None = None,
) -> HeadFit:
    """Return the ridge regression of one objective.

    Minimises ``sum_n w_n (x_n . b + c - y_n)^2 + sum_p q (d_p . b - m)^2 + alpha |b|^2`` in
    float64, d_p the vector difference of a pair and m its margin; the intercept c is not
    penalised. Alpha has the lowest error of this kind on the held-out rows; then the head is
    fitted on all rows.

    Args:
        last_NH: Last-token vectors.
        labels_N: Labels, NaN where missing.
        held_out_N: Rows that choose alpha.
        weights_N: Row weights.
        alphas: Penalties to try.
        name: For messages.
        pairs: Pairs that are about the objective.

    Raises:
        DatasetRefused: If fewer than two rows have labels on either side of the split.
    """
    has_label_N = ~torch.isnan(labels_N)
    train, held_out = (
        torch.nonzero(has_label_N & side).flatten() for side in (~held_out_N, held_out_N)
    )
    if min(len(train), len(held_out)) < 2:
        raise DatasetRefused(
            f"objective {name!r} has labels on {len(train)} training and {len(held_out)} held-out "
            "rows, at least 2 of each are needed; check its sources in the objectives file"
        )
    before = _Ridge(
        last_NH[train],
        labels_N[train],
        weights_N[train],
        None if pairs is None else pairs.part(~pairs.held_out_P),
    )
    judge = _HeldOut(
        last_NH[held_out],
        labels_N[held_out],
        weights_N[held_out],
        None if pairs is None else pairs.part(pairs.held_out_P),
        before,
    )
    best = min(alphas, key=judge.error)
    selection_weight_H, selection_bias = before.solve(best)
    every = torch.cat([train, held_out])
    weight_H, bias = _Ridge(last_NH[every], labels_N[every], weights_N[every], pairs).solve(best)
    report: dict[str, float | int] = {
        "alpha": best,
        "rows": len(every),
        "pairs": 0 if pairs is None else len(pairs.differences_PH),
        **judge.report(best),
    }
    return HeadFit(weight_H, bias, selection_weight_H, selection_bias, report)


class _HeldOut:
    """What was held out of a fit, to judge it by: ratings, and pairs if there are any."""

    def __init__(
        self,
        x_NH: Tensor,
        y_N: Tensor,
        weights_N: Tensor,
        pairs: PairRows | None,
        fit: _Ridge,
    ) -> None:
        self._x_NH, self._y_N, self._weights_N = x_NH, y_N.double(), weights_N.double()
        self._pairs = pairs
        self._fit = fit

    def error(self, alpha: float) -> float:
        """Return the weighted squared error, the fit's own loss without its penalty."""
        predicted = self._fit.predict(self._x_NH, alpha)
        error = float(((predicted - self._y_N) ** 2 * self._weights_N).sum())
        total = float(self._weights_N.sum())
        if self._pairs is not None and len(self._pairs.differences_PH):
            margins_P = self._margins(self._pairs, alpha)
            # Ratings weigh 1 on average, so a pair weighs as many of these means.
            each = self._fit.pair_weight * total / len(self._y_N)
            error += each * float(((margins_P - self._fit.margin) ** 2).sum())
        return error / total

    def report(self, alpha: float) -> dict[str, float | int]:
        """Return how well the held-out rows are predicted."""
        predicted, truth = self._fit.predict(self._x_NH, alpha), self._y_N
        found: dict[str, float | int] = {
            "held_out_rows": len(truth),
            "spearman": rank_correlation(predicted, truth),
            "pearson": _pearson(predicted, truth),
            "mse": float(((predicted - truth) ** 2).mean()),
            "label_variance": float(truth.var(correction=0)),
        }
        if self._pairs is not None and len(self._pairs.differences_PH):
            found["held_out_pairs"] = len(self._pairs.differences_PH)
            right = self._margins(self._pairs, alpha) > 0
            found["held_out_pair_accuracy"] = float(right.double().mean())
        return found

    def _margins(self, pairs: PairRows, alpha: float) -> Tensor:
        weight_H, _ = self._fit.solve(alpha)
        return pairs.differences_PH.double() @ weight_H


def _pearson(a_N: Tensor, b_N: Tensor) -> float:
    """Return the linear correlation; 0 if either is constant, as for ranks."""
    a_N, b_N = a_N - a_N.mean(), b_N - b_N.mean()
    norms = a_N.norm() * b_N.norm()
    return float(a_N @ b_N / norms) if norms > 0 else 0.0


class _Ridge:
    """Weighted ridge regression, decomposed once for all alphas."""

    def __init__(
        self, x_NH: Tensor, y_N: Tensor, weights_N: Tensor, pairs: PairRows | None
    ) -> None:
        weights_N = weights_N.double() / weights_N.double().mean()
        x_NH, y_N = x_NH.double(), y_N.double()
        self._mean_H = (weights_N[:, None] * x_NH).mean(dim=-2)
        self._mean_y = float((weights_N * y_N).mean())
        centred_NH = x_NH - self._mean_H
        weighted_NH = centred_NH * weights_N[:, None]
        gram_HH = centred_NH.T @ weighted_NH
        target_H = weighted_NH.T @ (y_N - self._mean_y)
        self.pair_weight = self.margin = 0.0
        if pairs is not None and len(pairs.differences_PH):
            differences_PH = pairs.differences_PH.double()
            self.pair_weight = pairs.row_weight(len(y_N))
            self.margin = pairs.margin * float(y_N.std(correction=0))
            gram_HH += self.pair_weight * differences_PH.T @ differences_PH
            target_H += self.pair_weight * self.margin * differences_PH.sum(dim=-2)
        self._values_H, self._vectors_HH = torch.linalg.eigh(gram_HH)
        self._projected_H = self._vectors_HH.T @ target_H

    def solve(self, alpha: float) -> tuple[Tensor, float]:
        weight_H = self._vectors_HH @ (self._projected_H / (self._values_H.clamp(min=0) + alpha))
        return weight_H, self._mean_y - float(self._mean_H @ weight_H)

    def predict(self, x_NH: Tensor, alpha: float) -> Tensor:
        weight_H, bias = self.solve(alpha)
        return x_NH.double() @ weight_H + bias
