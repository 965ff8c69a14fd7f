"""Which aggregation settings mean; the trainers themselves are run in test_online."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from steerward.protocol.alignment import GrpoSettings, PamaSettings
from steerward.training.align.grpo import aggregation as ways
from steerward.training.align.trainers import aggregation_of

TWO = {"a": 1.0, "b": -1.0}


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (GrpoSettings(), ways.gdpo()),
        (GrpoSettings(aggregation="mo_grpo"), ways.mo_grpo()),
        (
            GrpoSettings(aggregation="sum_then_normalize", scaling="none"),
            ways.SumThenNormalize(scaling="none"),
        ),
        (GrpoSettings(aggregation="softmin", softmin_k=3.0), ways.SoftMin(sharpness=3.0)),
        (GrpoSettings(aggregation="min", weights=TWO), ways.Min(noon=False)),
        (PamaSettings(weights=TWO), ways.Min()),
        (PamaSettings(weights={"a": 1.0, "b": 2.0}), ways.Min(divide_by_weights=True)),
        (
            GrpoSettings(aggregation="min", weights=TWO, final_weights={"a": 2.0, "b": -1.0}),
            ways.Min(noon=False, divide_by_weights=True),
        ),
        (PamaSettings(granularity="batch", noon=False), ways.Gram(noon=False)),
        (
            PamaSettings(softmin_k=2.0, standardise="batch"),
            ways.SoftMin(sharpness=2.0, noon=True, scaling="batch"),
        ),
    ],
)
def test_settings_name_an_aggregation(settings: Any, wanted: ways.Aggregation) -> None:
    assert aggregation_of(settings) == wanted


def test_pama_of_equal_weights_takes_the_least_of_what_is_above_zero() -> None:
    rewards_NK = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0], [1.0, 1.0]])
    found = aggregation_of(PamaSettings(weights=TWO))(
        rewards_NK, group_size=4, weights_K=torch.ones(2)
    )
    assert (found.advantages_N > 0).tolist() == [False, False, True, False]
