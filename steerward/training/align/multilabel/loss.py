"""Multi-label reward regression: the loss, and what is told of each label.

One encoder with an output for each label, fitted by mean squared error, as the reward model of
Li et al. (arXiv:2503.21819), whose outputs are politeness, meaningfulness, actionability and
safety. That labels may be missing, how that counts, and the report are ours.

Axis legend: N responses, K labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steerward.protocol.errors import NonFiniteScore, TrainingFailed
from steerward.training.statistics import spearman


@dataclass(frozen=True, slots=True)
class Calibration:
    """What predictions of a label are like, so that several labels can be brought to one scale."""

    mean: float
    std: float


@dataclass(frozen=True, slots=True)
class LabelFit:
    """How well predictions of one label agree with it."""

    count: int
    """Responses that have the label."""
    r2: float | None
    """Share of the label's variance that is explained, at most 1, below 0 if its mean would do
    better; None if the label does not vary."""
    spearman: float | None
    """Rank correlation; None if the label does not vary."""
    mean_absolute_error: float | None
    """In units of the label; None without responses."""


def masked_squared_error(
    predicted_NK: Tensor,
    labels_NK: Tensor,
    *,
    weights_K: Tensor | None = None,
    count: Tensor | None = None,
) -> Tensor:
    """Return the mean squared error over the labels that are there.

    With no label missing it equals `torch.nn.functional.mse_loss`. A missing label has no part in
    the value and a gradient of exactly zero; without any label, the loss is 0.

    Args:
        predicted_NK: Outputs.
        labels_NK: NaN where a label is missing.
        weights_K: Of the labels' squared errors. Default: 1 each.
        count: What the sum is divided by, where a batch is computed in parts. Default: the labels
            that are there.
    """
    is_there_NK = ~torch.isnan(labels_NK)
    # Before the difference: a NaN that is masked only afterwards has a NaN for its gradient.
    targets_NK = torch.where(is_there_NK, labels_NK, predicted_NK.detach())
    squares_NK = (predicted_NK - targets_NK).square()
    if weights_K is not None:
        squares_NK = squares_NK * weights_K
    divisor = is_there_NK.sum() if count is None else count
    return squares_NK.sum() / divisor.clamp(min=1)


def balancing_weights(labels_NK: Tensor) -> Tensor:
    """Return weights_K that make errors of all labels count alike: one over their variance.

    Ours: with plain squared errors, a label on 1..10 rules one on 0..1.

    Raises:
        TrainingFailed: If a label does not vary.
    """
    weights: list[float] = []
    for k in range(labels_NK.shape[-1]):
        variance = float(_present(labels_NK, k).var(correction=0))
        if not variance > 0.0:
            raise TrainingFailed(
                f"label number {k} does not vary (variance {variance}), so no weight balances it; "
                "leave it out of the objectives, or do not balance labels"
            )
        weights.append(1.0 / variance)
    return torch.tensor(weights)


def calibrations(predicted_NK: Tensor, names: Sequence[str]) -> dict[str, Calibration]:
    """Return mean and standard deviation of each label's predictions, by name.

    Raises:
        NonFiniteScore: If a prediction is no number.
        TrainingFailed: If predictions do not vary: no such column tells anything.
    """
    _check_finite(predicted_NK)
    found: dict[str, Calibration] = {}
    for k, name in enumerate(names):
        values_N = predicted_NK[:, k].double()
        std = float(values_N.std(correction=0))
        if not std > 0.0:
            raise TrainingFailed(
                f"the model predicts the same {name} for all {len(values_N)} held-out responses; "
                "train for more steps, raise learning_rate, or hold out more"
            )
        found[name] = Calibration(float(values_N.mean()), std)
    return found


def fits(predicted_NK: Tensor, labels_NK: Tensor, names: Sequence[str]) -> dict[str, LabelFit]:
    """Return how well each label is predicted, by name.

    Args:
        predicted_NK: Outputs.
        labels_NK: NaN where a label is missing.
        names: Of the labels.

    Raises:
        NonFiniteScore: If a prediction is no number.
    """
    _check_finite(predicted_NK)
    found: dict[str, LabelFit] = {}
    for k, name in enumerate(names):
        labels_N = _present(labels_NK, k)
        predicted_N = predicted_NK[~torch.isnan(labels_NK[:, k]), k].double()
        found[name] = _fit(predicted_N, labels_N)
    return found


def _fit(predicted_N: Tensor, labels_N: Tensor) -> LabelFit:
    if not len(labels_N):
        return LabelFit(0, None, None, None)
    errors_N = predicted_N - labels_N
    variance = float((labels_N - labels_N.mean()).square().sum())
    varies = variance > 0.0
    return LabelFit(
        count=len(labels_N),
        r2=1.0 - float(errors_N.square().sum()) / variance if varies else None,
        spearman=spearman(predicted_N.numpy(), labels_N.numpy()) if varies else None,
        mean_absolute_error=float(errors_N.abs().mean()),
    )


def mean_r2(found: dict[str, LabelFit]) -> float | None:
    """Return the mean of the labels' R2, of those that have one; None if none has."""
    values = [fit.r2 for fit in found.values() if fit.r2 is not None]
    return math.fsum(values) / len(values) if values else None


def _present(labels_NK: Tensor, k: int) -> Tensor:
    labels_N = labels_NK[:, k]
    return labels_N[~torch.isnan(labels_N)].double()


def _check_finite(predicted_NK: Tensor) -> None:
    wrong = int((~torch.isfinite(predicted_NK)).sum())
    if wrong:
        raise NonFiniteScore(
            f"{wrong} of {predicted_NK.numel()} predictions are NaN or infinite; lower "
            "learning_rate and train again"
        )
