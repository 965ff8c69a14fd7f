"""Columns that count only where another is high enough."""

from __future__ import annotations

import pytest
import torch

from steerward.protocol.errors import InvalidRequest, UnknownObjective
from steerward.training.align.grpo.conditions import Condition, conditioned

NAN = float("nan")
NAMES = ["short", "right"]


def test_column_counts_as_zero_unless_the_raw_value_of_another_is_reached() -> None:
    rewards_NK = torch.tensor([[3.0, 1.0], [3.0, 0.9], [-3.0, 0.0]])
    kept = rewards_NK.clone()
    found = conditioned(rewards_NK, [Condition("short", "right", 1.0)], names=NAMES)
    assert found[:, 0].tolist() == [3.0, 0.0, 0.0]
    assert torch.equal(found[:, 1], rewards_NK[:, 1])
    assert torch.equal(rewards_NK, kept)


def test_what_does_not_apply_stays() -> None:
    rewards_NK = torch.tensor([[3.0, NAN], [NAN, 0.0]])
    found = conditioned(rewards_NK, [Condition("short", "right", 1.0)], names=NAMES)
    assert found[0, 0] == 3.0
    assert found[1, 0].isnan()


def test_conditions_read_raw_values_and_not_each_other() -> None:
    both = [Condition("short", "right", 1.0), Condition("right", "short", 1.0)]
    found = conditioned(torch.tensor([[3.0, 0.5], [0.5, 3.0]]), both, names=NAMES)
    assert found.tolist() == [[0.0, 0.5], [0.5, 0.0]]


def test_conditions_that_cannot_be_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="another column"):
        Condition("short", "short", 1.0)
    with pytest.raises(InvalidRequest, match="finite threshold"):
        Condition("short", "right", NAN)
    with pytest.raises(UnknownObjective, match="'left'; the columns are short, right"):
        conditioned(torch.zeros(1, 2), [Condition("short", "left", 1.0)], names=NAMES)
