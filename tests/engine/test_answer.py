"""Answers: vectors built once, and no number that JSON cannot spell."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from steerward.engine.answer import AnswerBuilder
from steerward.engine.items import ItemOutput
from steerward.models.packing import Group
from steerward.models.reward_model import RewardModel
from steerward.protocol.errors import InvalidDirection, NonFiniteScore, UnknownObjective
from steerward.protocol.objectives import Objective, ObjectiveSet, RatingScale
from tests.engine.conftest import request

GROUP = Group((1, 2), [(3,)], gating_position=1)


def build(model: RewardModel, *rewards: float, **fields: Any) -> dict[str, Any]:
    """Return the answer to one candidate with these rewards, the last for all that follow."""
    rewards_K = [*rewards, *[rewards[-1]] * (len(model.objectives) - len(rewards))]
    output = ItemOutput(torch.tensor([rewards_K]), None, None, None, 0, 0, 0.0, 0.0)
    builder = AnswerBuilder(model, name="m", request=request(**fields))
    return builder.build([[GROUP]], [output]).by_name()["items"][0]["candidates"][0]


def test_weights_beyond_float32_give_finite_scores(armorm: RewardModel) -> None:
    """1e39 is infinite in float32; the score was answered as null."""
    candidate = build(armorm, 0.5, weights={"objective_0": 1e39})
    column_K = armorm.transform[:, 0].double()
    assert candidate["weighted_score"] == pytest.approx(float(0.5 * 1e39 * column_K.sum()))


def test_weights_that_lead_to_infinity_are_refused(armorm: RewardModel) -> None:
    # The coefficients are finite still, their sum over rewards is not.
    with pytest.raises(InvalidDirection, match=r"1\.8e308") as caught:
        build(armorm, 100.0, weights={"objective_0": 1e308})
    assert caught.value.param == "weights"


@pytest.mark.parametrize("form", ["direction", "directions"])
def test_direction_that_leads_to_infinity_is_refused(
    armorm: RewardModel, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    names = armorm.objectives.names
    flat = [Objective(name=name, reference_mean=0.0, reference_std=1e-308) for name in names]
    monkeypatch.setattr(armorm, "objectives", ObjectiveSet(objectives=tuple(flat)))
    vector: Any = {"objective_0": 1.0}
    with pytest.raises(InvalidDirection) as caught:
        build(armorm, 100.0, **{form: [vector] if form == "directions" else vector})
    assert caught.value.param == form


def test_direction_scores_follow_the_reference_moments(
    armorm: RewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [
        Objective(name=name, reference_mean=0.25, reference_std=0.5)
        for name in armorm.objectives.names
    ]
    monkeypatch.setattr(armorm, "objectives", ObjectiveSet(objectives=tuple(known)))
    candidate = build(armorm, 1.0, 0.0, direction={"objective_0": 3.0, "objective_1": -4.0})
    assert candidate["direction_score"] == pytest.approx(0.6 * 1.5 - 0.8 * -0.5)


def test_rating_that_is_not_finite_is_an_error(
    armorm: RewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    steep = RatingScale(label="0..4", multiplier=1e308)
    known = [Objective(name=name, rating=steep) for name in armorm.objectives.names]
    monkeypatch.setattr(armorm, "objectives", ObjectiveSet(objectives=tuple(known)))
    assert math.isfinite(build(armorm, 0.5, explain=True)["ratings"]["objective_0"]["value"])
    with pytest.raises(NonFiniteScore, match="objective_0"):
        build(armorm, 100.0, explain=True)


class CountingSet(ObjectiveSet):
    """Objectives that count how often a mapping becomes a vector."""

    def vector(self, values: Mapping[str, float], *, param: str | None = None) -> list[float]:
        VECTORS.append(param)
        return super().vector(values, param=param)


VECTORS: list[str | None] = []


def test_directions_become_vectors_once_however_many_items_there_are(
    armorm: RewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were built again for every item, on the event loop."""
    counting = CountingSet(objectives=armorm.objectives.objectives)
    monkeypatch.setattr(armorm, "objectives", counting)
    VECTORS.clear()
    directions = [{"objective_0": 1.0}, {"objective_1": -1.0}]
    items = [{"prompt": "a", "candidates": ["b"]}] * 5
    builder = AnswerBuilder(armorm, name="m", request=request(items=items, directions=directions))
    rewards_GK = torch.rand(1, 19)
    output = ItemOutput(rewards_GK, None, None, None, 0, 0, 0.0, 0.0)
    answer = builder.build([[GROUP]] * 5, [output] * 5).by_name()
    assert VECTORS == ["directions[0]", "directions[1]"]
    expected = [float(rewards_GK[0, 0]), -float(rewards_GK[0, 1])]
    for item in answer["items"]:
        assert item["candidates"][0]["direction_scores"] == pytest.approx(expected)


def test_unknown_objective_names_its_place(armorm: RewardModel) -> None:
    for fields, place in (
        ({"weights": {"kindness": 1.0}}, "weights.kindness"),
        ({"direction": {"kindness": 1.0}}, "direction.kindness"),
        ({"directions": [{"objective_0": 1.0}, {"kindness": 1.0}]}, "directions[1].kindness"),
    ):
        with pytest.raises(UnknownObjective) as caught:
            AnswerBuilder(armorm, name="m", request=request(**fields))
        assert caught.value.param == place
