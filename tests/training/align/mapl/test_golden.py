"""MAPL's losses against numpy's, of reward models and of policies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from steerward.training.align.mapl.loss import (
    INTER,
    PARTS,
    implicit_rewards,
    inter_losses,
    intra_losses,
    part_weights,
    preference_losses,
    row_gaps,
    total_loss,
)
from tests.golden_optimizers import SINGLE, assert_close, optimizer_cases, tensor_of

cases = pytest.mark.parametrize("case", optimizer_cases("mapl"), ids=range(10))
kinds = pytest.mark.parametrize("kind", ["reward_model", "policy"])


def rewards_of(inputs: dict[str, Any], kind: str) -> dict[str, Tensor]:
    """Return the rewards of each part's sides, (N, S)."""
    if kind == "reward_model":
        return {part: tensor_of(inputs["rewards"][part]) for part in PARTS}
    return {
        part: implicit_rewards(
            tensor_of(inputs["policy"][part]),
            tensor_of(inputs["reference"][part]),
            beta=inputs["beta"],
        )
        for part in PARTS
    }


def weights_of(inputs: dict[str, Any]) -> dict[str, float]:
    return {name: inputs[name] for name in ("lambda_intra", "lambda_inter")}


@kinds
@cases
def test_losses_are_those_of_the_formulas(case: dict[str, Any], kind: str) -> None:
    inputs, expected = case["inputs"], case["losses"][kind]
    rewards = rewards_of(inputs, kind)
    with_w, with_l, without_w, without_l = rewards["inter"].unbind(dim=-1)
    inter_N = inter_losses(
        with_w,
        with_l,
        without_chosen_N=without_w,
        without_rejected_N=without_l,
        directions_N=torch.tensor(inputs["directions"]),
    )
    found = {
        "preference": preference_losses(*rewards["preference"].unbind(dim=-1)).mean(),
        "intra": intra_losses(*rewards["intra"].unbind(dim=-1)).mean(),
        "inter": inter_N.mean(),
    }
    for part in PARTS:
        assert_close(found[part], expected[part])
    total = total_loss(*(found[part] for part in PARTS), **weights_of(inputs))
    assert_close(total, expected["total"])


@kinds
@cases
def test_weighted_rows_of_one_batch_have_the_total_loss(case: dict[str, Any], kind: str) -> None:
    inputs = case["inputs"]
    rewards = rewards_of(inputs, kind)
    counts = [len(rewards[part]) for part in PARTS]
    parts_N = torch.arange(len(PARTS)).repeat_interleave(torch.tensor(counts))
    directions_N = torch.ones(len(parts_N), dtype=torch.long)
    directions_N[parts_N == INTER] = torch.tensor(inputs["directions"])
    # Behind all rows, the pairs of inter rows without instructions.
    chosen_R, rejected_R = (
        torch.cat([*(rewards[part][:, side] for part in PARTS), rewards["inter"][:, 2 + side]])
        for side in range(2)
    )
    gaps_N = row_gaps(chosen_R, rejected_R, parts_N=parts_N, directions_N=directions_N)
    weights = part_weights(counts, **weights_of(inputs))
    found = (weights[parts_N] * -logsigmoid(gaps_N)).mean()
    assert_close(found, case["losses"][kind]["total"], tolerance=SINGLE)
