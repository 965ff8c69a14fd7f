"""The loss of several labels, and its gradient, against numpy's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from steerward.training.align.multilabel.loss import balancing_weights, masked_squared_error
from tests.golden_optimizers import EXACT, SINGLE, assert_close, optimizer_cases, tensor_of

cases = pytest.mark.parametrize("case", optimizer_cases("multilabel"), ids=range(10))


def weights_of(inputs: dict[str, Any], kind: str) -> Tensor | None:
    if kind == "balanced":
        return balancing_weights(tensor_of(inputs["labels"]))
    return tensor_of(inputs["weights"]) if kind == "weighted" else None


@cases
def test_loss_and_gradient_are_those_of_the_labels_that_are_there(case: dict[str, Any]) -> None:
    inputs = case["inputs"]
    for kind, expected in case["losses"].items():
        predicted_NK = tensor_of(inputs["predicted"]).requires_grad_()
        loss = masked_squared_error(
            predicted_NK, tensor_of(inputs["labels"]), weights_K=weights_of(inputs, kind)
        )
        (gradient_NK,) = torch.autograd.grad(loss, predicted_NK)
        tolerance = SINGLE if kind == "balanced" else EXACT
        assert_close(loss, expected["loss"], tolerance=tolerance)
        assert_close(gradient_NK, expected["gradient"], tolerance=tolerance)


@cases
def test_parts_of_a_batch_add_up_to_its_loss(case: dict[str, Any]) -> None:
    inputs = case["inputs"]
    predicted_NK, labels_NK = tensor_of(inputs["predicted"]), tensor_of(inputs["labels"])
    count = (~labels_NK.isnan()).sum()
    losses = [
        masked_squared_error(
            predicted, labels, weights_K=weights_of(inputs, "weighted"), count=count
        )
        for predicted, labels in zip(predicted_NK.split(3), labels_NK.split(3), strict=True)
    ]
    assert_close(torch.stack(losses).sum(), case["losses"]["weighted"]["loss"])
