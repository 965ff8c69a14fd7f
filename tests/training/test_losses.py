"""Losses against their definitions."""

from __future__ import annotations

import math

import pytest
import torch

from steerward.training.losses import bradley_terry, calibrated_mse, next_token_loss


def test_bradley_terry_is_minus_log_of_the_winning_chance() -> None:
    chosen, rejected = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    expected = -(math.log(1 / (1 + math.exp(-1))) + math.log(1 / (1 + math.exp(2)))) / 2
    assert float(bradley_terry(chosen, rejected)) == pytest.approx(expected)
    assert float(bradley_terry(torch.tensor([]), torch.tensor([]))) == 0.0


def test_ratings_are_read_on_their_raters_scale() -> None:
    loss = calibrated_mse(
        torch.tensor([[1.0, 5.0], [2.0, 7.0]]),
        response_R=torch.tensor([0, 1]),
        objective_R=torch.tensor([0, 1]),
        rater_R=torch.tensor([1, 0]),
        labels_R=torch.tensor([3.0, 10.0]),
        slope=torch.tensor([2.0, 1.0]),
        offset=torch.tensor([-1.0, 0.5]),
    )
    assert float(loss) == pytest.approx(((1.0 + 0.5 - 3.0) ** 2 + (14.0 - 1.0 - 10.0) ** 2) / 2)


def test_next_token_loss_skips_what_has_no_next_token() -> None:
    embedding = torch.eye(4) * 50.0
    hidden = torch.eye(4)[[2, 0, 1]]
    right = torch.tensor([2, -100, 1])
    assert float(next_token_loss(hidden, embedding, targets_T=right, max_tokens=10)) < 1e-3
    wrong = torch.tensor([3, -100, 1])
    assert float(next_token_loss(hidden, embedding, targets_T=wrong, max_tokens=10)) > 10
    none = torch.full((3,), -100)
    assert float(next_token_loss(hidden, embedding, targets_T=none, max_tokens=10)) == 0.0
