"""Objectives keep their order and their names."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from steerward.protocol.errors import UnknownObjective
from steerward.protocol.objectives import Objective, ObjectiveSet, RatingScale


def test_vectors_follow_the_head_order() -> None:
    objectives = ObjectiveSet.from_names(["a", "b", "c"])
    assert objectives.vector({"c": 3.0, "a": 1.0}) == [1.0, 0.0, 3.0]
    assert objectives.by_name([1.0, 2.0, 3.0]) == {"a": 1.0, "b": 2.0, "c": 3.0}
    assert list(objectives.by_name([1.0, 2.0, 3.0])) == ["a", "b", "c"]


def test_unknown_objective_lists_the_known_ones_and_its_place() -> None:
    with pytest.raises(UnknownObjective, match="has: a, b") as caught:
        ObjectiveSet.from_names(["a", "b"]).vector({"z": 1.0}, param="direction")
    assert caught.value.param == "direction.z"


def test_repeated_and_missing_names_are_refused() -> None:
    for names in (["a", "a"], [], [""]):
        with pytest.raises(ValidationError):
            ObjectiveSet.from_names(names)


def test_reference_moments_go_together() -> None:
    with pytest.raises(ValidationError, match="go together"):
        Objective(name="a", reference_mean=1.0)
    with pytest.raises(ValidationError, match="greater than 0"):
        Objective(name="a", reference_mean=1.0, reference_std=0.0)
    whole = Objective(name="a", reference_mean=1.0, reference_std=2.0)
    assert ObjectiveSet(objectives=(whole,)).has_reference
    assert not ObjectiveSet(objectives=(whole, Objective(name="b"))).has_reference


def test_rating_scale_is_not_clamped() -> None:
    assert RatingScale(label="0..4", multiplier=5.0, offset=-0.5).value(1.2) == 5.5


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_json_cannot_spell_are_refused(number: float) -> None:
    with pytest.raises(ValidationError, match="finite"):
        RatingScale(label="0..4", multiplier=number)
    with pytest.raises(ValidationError, match="finite"):
        Objective(name="a", reference_mean=number, reference_std=1.0)


def test_unknown_objective_is_cut_when_it_is_told_back() -> None:
    with pytest.raises(UnknownObjective) as caught:
        ObjectiveSet.from_names(["a"]).vector({"z" * 100_000: 1.0}, param="direction")
    assert len(caught.value.message) < 200
    assert len(caught.value.param or "") < 100
