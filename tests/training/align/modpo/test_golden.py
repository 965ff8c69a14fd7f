"""MODPO's losses against numpy's, by the formula and by DPO with a shifted reference."""

from __future__ import annotations

from typing import Any

import pytest
from torch import Tensor

from steerward.training.align.modpo.loss import (
    Tradeoff,
    modpo_logits,
    modpo_losses,
    modpo_rewards,
    shifted_reference,
)
from tests.golden_optimizers import assert_close, optimizer_cases, tensor_of

SIDES = ("chosen", "rejected")
cases = pytest.mark.parametrize("case", optimizer_cases("modpo"), ids=range(10))


def tradeoff_of(inputs: dict[str, Any]) -> Tradeoff:
    weights = tuple(inputs["weights"])
    return Tradeoff(tuple(f"objective_{k}" for k in range(len(weights))), weights)


def logratios(inputs: dict[str, Any], side: str) -> Tensor:
    return tensor_of(inputs["policy"][side]) - tensor_of(inputs["reference"][side])


def check_losses(logits_N: Tensor, case: dict[str, Any]) -> None:
    assert_close(logits_N, case["logits"])
    for loss in ("sigmoid", "hinge"):
        assert_close(modpo_losses(logits_N, loss=loss).mean(), case["losses"][loss])


@cases
def test_losses_are_those_of_the_formula(case: dict[str, Any]) -> None:
    inputs = case["inputs"]
    chosen_N, rejected_N = (logratios(inputs, side) for side in SIDES)
    margins_NK = tensor_of(inputs["margins"]["chosen"]) - tensor_of(inputs["margins"]["rejected"])
    tradeoff, beta = tradeoff_of(inputs), inputs["beta"]
    logits_N = modpo_logits(chosen_N - rejected_N, margins_NK, tradeoff=tradeoff, beta=beta)
    check_losses(logits_N, case)


@cases
def test_losses_are_those_of_dpo_with_a_shifted_reference(case: dict[str, Any]) -> None:
    inputs = case["inputs"]
    tradeoff, beta = tradeoff_of(inputs), inputs["beta"]
    chosen_N, rejected_N = (
        tensor_of(inputs["policy"][side])
        - shifted_reference(
            tensor_of(inputs["reference"][side]),
            tensor_of(inputs["margins"][side]),
            tradeoff=tradeoff,
            beta=beta,
        )
        for side in SIDES
    )
    check_losses(tradeoff.beta(beta) * (chosen_N - rejected_N), case)


@cases
def test_logged_rewards_are_estimates_of_the_pairs_own(case: dict[str, Any]) -> None:
    inputs = case["inputs"]
    for side in SIDES:
        found = modpo_rewards(
            logratios(inputs, side),
            tensor_of(inputs["margins"][side]),
            tradeoff=tradeoff_of(inputs),
            beta=inputs["beta"],
        )
        assert_close(found, case["rewards"][side])
