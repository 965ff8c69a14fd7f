"""The loss of several labels, and what is told of each."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from steerward.protocol.errors import NonFiniteScore, TrainingFailed
from steerward.training.align.multilabel.loss import (
    balancing_weights,
    calibrations,
    fits,
    masked_squared_error,
    mean_r2,
)

NAN = float("nan")


def random_case(n: int, k: int) -> tuple[Tensor, Tensor]:
    numbers = torch.Generator().manual_seed(n * 100 + k)
    predicted_NK = torch.randn(n, k, generator=numbers, dtype=torch.float64)
    return predicted_NK.requires_grad_(), torch.randn(n, k, generator=numbers, dtype=torch.float64)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (7, 1), (5, 4), (64, 3)])
def test_loss_and_gradient_equal_torch_when_no_label_is_missing(n: int, k: int) -> None:
    predicted_NK, labels_NK = random_case(n, k)
    loss = masked_squared_error(predicted_NK, labels_NK)
    expected = mse_loss(predicted_NK, labels_NK)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    (ours,) = torch.autograd.grad(loss, predicted_NK)
    (theirs,) = torch.autograd.grad(expected, predicted_NK)
    torch.testing.assert_close(ours, theirs)


def test_missing_label_has_zero_gradient_and_no_part_in_the_mean() -> None:
    predicted_NK, labels_NK = random_case(6, 3)
    labels_NK[1, 2] = labels_NK[4, 0] = NAN
    loss = masked_squared_error(predicted_NK, labels_NK)
    loss.backward()
    is_there_NK = ~labels_NK.isnan()
    kept = mse_loss(predicted_NK[is_there_NK], labels_NK[is_there_NK])
    assert loss.item() == pytest.approx(kept.item(), rel=1e-12)
    assert predicted_NK.grad is not None
    assert predicted_NK.grad[1, 2] == 0.0
    assert predicted_NK.grad[4, 0] == 0.0
    assert bool((predicted_NK.grad[is_there_NK] != 0).all())


def test_batch_without_labels_gives_loss_and_gradient_of_zero() -> None:
    predicted_NK, labels_NK = random_case(2, 2)
    loss = masked_squared_error(predicted_NK, torch.full_like(labels_NK, NAN))
    loss.backward()
    assert loss.item() == 0.0
    assert predicted_NK.grad is not None
    assert not predicted_NK.grad.any()


def test_one_label_equals_scalar_regression() -> None:
    predicted_NK, labels_NK = random_case(9, 1)
    loss = masked_squared_error(predicted_NK, labels_NK)
    assert loss.item() == pytest.approx(mse_loss(predicted_NK[:, 0], labels_NK[:, 0]).item())


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    predicted_NK, labels_NK = random_case(8, 3)
    labels_NK[0] = NAN
    count = (~labels_NK.isnan()).sum()
    parts = [
        masked_squared_error(predicted_NK[rows], labels_NK[rows], count=count)
        for rows in (slice(0, 3), slice(3, 8))
    ]
    whole = masked_squared_error(predicted_NK, labels_NK)
    assert sum(part.item() for part in parts) == pytest.approx(whole.item())


def test_prediction_that_is_no_number_is_not_masked_away() -> None:
    predicted_NK = torch.tensor([[NAN, 1.0]])
    assert math.isnan(float(masked_squared_error(predicted_NK, torch.tensor([[NAN, 0.0]]))))


def test_balancing_makes_the_scale_of_a_label_irrelevant() -> None:
    predicted_NK, labels_NK = random_case(50, 2)
    labels_NK[3, 1] = NAN
    scale_K = torch.tensor([1.0, 100.0])
    scaled = masked_squared_error(
        predicted_NK * scale_K,
        labels_NK * scale_K,
        weights_K=balancing_weights(labels_NK * scale_K),
    )
    plain = masked_squared_error(predicted_NK, labels_NK, weights_K=balancing_weights(labels_NK))
    assert scaled.item() == pytest.approx(plain.item(), rel=1e-5)


def test_label_that_does_not_vary_cannot_be_balanced() -> None:
    with pytest.raises(TrainingFailed, match="label number 1 does not vary"):
        balancing_weights(torch.tensor([[1.0, 2.0], [2.0, 2.0]]))


def test_fit_is_told_for_each_label_apart() -> None:
    labels_NK = torch.tensor([[0.0, 5.0, 1.0], [1.0, 5.0, NAN], [2.0, 5.0, NAN], [3.0, NAN, NAN]])
    predicted_NK = torch.tensor([[0.0, 4.0, 3.0], [1.0, 5.0, 0], [2.0, 6.0, 0], [4.0, 9.0, 0]])
    found = fits(predicted_NK, labels_NK, ["first", "same", "rare"])
    assert found["first"].r2 == pytest.approx(1 - 1 / 5)
    assert found["first"].spearman == pytest.approx(1.0)
    assert found["first"].mean_absolute_error == pytest.approx(0.25)
    assert (found["same"].count, found["same"].r2, found["same"].spearman) == (3, None, None)
    assert found["same"].mean_absolute_error == pytest.approx(2 / 3)
    assert found["rare"].count == 1
    assert mean_r2(found) == pytest.approx(0.8)


def test_label_that_nothing_has_is_told_as_such() -> None:
    found = fits(torch.zeros(2, 1), torch.full((2, 1), NAN), ["none"])
    assert found["none"].count == 0
    assert found["none"].mean_absolute_error is None
    assert mean_r2(found) is None


def test_calibration_is_mean_and_spread_of_predictions() -> None:
    found = calibrations(torch.tensor([[1.0, 2.0], [3.0, 8.0]]), ["a", "b"])
    assert (found["a"].mean, found["a"].std) == (2.0, 1.0)
    assert (found["b"].mean, found["b"].std) == (5.0, 3.0)


def test_predictions_that_say_nothing_are_refused() -> None:
    with pytest.raises(TrainingFailed, match="predicts the same b for all 2"):
        calibrations(torch.tensor([[1.0, 2.0], [3.0, 2.0]]), ["a", "b"])
    with pytest.raises(NonFiniteScore, match="1 of 2 predictions"):
        fits(torch.tensor([[1.0, NAN]]), torch.zeros(1, 2), ["a", "b"])
