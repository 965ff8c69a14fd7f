"""Directions as policies read them: the exact words, whole numbers, and where it ends."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from steerward.protocol.conditioning import DPA_V1, RULES, ConditioningRule
from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.errors import InvalidDirection, UnknownObjective

_BEFORE = (
    "You are a helpful, respectful, and honest assistant who always responds to the user in a "
    "harmless way. Your response should maximize weighted rating = "
)
# As the documentation of RLHFlow/DPA-v1-Mistral-7B gives them, at its ten angles.
_TEN_ANGLES = {
    0: "helpfulness*100 + verbosity*0",
    -5: "helpfulness*100 + verbosity*-9",
    -10: "helpfulness*98 + verbosity*-17",
    -15: "helpfulness*97 + verbosity*-26",
    -20: "helpfulness*94 + verbosity*-34",
    -25: "helpfulness*91 + verbosity*-42",
    -30: "helpfulness*87 + verbosity*-50",
    -35: "helpfulness*82 + verbosity*-57",
    -40: "helpfulness*77 + verbosity*-64",
    -45: "helpfulness*71 + verbosity*-71",
}


def a_rule(**fields: object) -> ConditioningRule:
    given_fields = {"name": "r", "objectives": ["a", "b"], "template": "{a} and {b}", **fields}
    return ConditioningRule.model_validate(given_fields)


@pytest.mark.parametrize(("angle", "weights"), _TEN_ANGLES.items())
def test_dpa_strings_are_those_of_its_documentation(angle: int, weights: str) -> None:
    conditioning = DPA_V1.condition(DPA_V1.at_angle(angle))
    assert conditioning.system == _BEFORE + weights
    assert conditioning.rule == "dpa-v1"
    assert conditioning.warnings == ()


def test_a_vector_of_any_length_reads_as_its_angle() -> None:
    direction = PreferenceDirection.from_mapping({"helpfulness": 0.97, "verbosity": -0.26})
    assert DPA_V1.condition(direction).weights == {"helpfulness": 97, "verbosity": -26}


def test_the_reward_models_names_are_understood() -> None:
    direction = PreferenceDirection.from_mapping(
        {"helpsteer-verbosity": -1.0, "helpsteer-helpfulness": 1.0}
    )
    assert DPA_V1.covers(direction)
    assert DPA_V1.condition(direction).system == _BEFORE + _TEN_ANGLES[-45]
    own = PreferenceDirection({"helpfulness": 0.6, "verbosity": -0.8})
    assert DPA_V1.reward_direction(own).components == {
        "helpsteer-helpfulness": 0.6,
        "helpsteer-verbosity": -0.8,
    }


@given(st.floats(min_value=-180, max_value=180))
def test_whole_numbers_are_within_half_a_degree(angle: float) -> None:
    weights = DPA_V1.condition(DPA_V1.at_angle(angle), force=True).weights
    read_back = math.degrees(math.atan2(weights["verbosity"], weights["helpfulness"]))
    assert abs((read_back - angle + 180) % 360 - 180) <= 0.5


@pytest.mark.parametrize("angle", [-45.0, 45.0])
def test_the_rim_is_in_the_cone(angle: float) -> None:
    assert abs(DPA_V1.condition(DPA_V1.at_angle(angle)).weights["verbosity"]) == 71


@pytest.mark.parametrize("angle", [-46.0, 45.1, 90.0, 180.0])
def test_directions_outside_the_cone_are_refused_unless_forced(angle: float) -> None:
    direction = DPA_V1.at_angle(angle)
    with pytest.raises(InvalidDirection, match=r"limit 45.*force.*best_of") as caught:
        DPA_V1.condition(direction)
    assert f"{abs(angle):.1f} degrees" in caught.value.message
    assert caught.value.param == "direction"
    (warning,) = DPA_V1.condition(direction, force=True).warnings
    assert "outside the trained cone" in warning


def test_the_side_without_training_is_warned_of() -> None:
    (warning,) = DPA_V1.condition(DPA_V1.at_angle(10)).warnings
    assert "10.0 degrees" in warning
    assert "-45 to 0" in warning


def test_weights_are_rounded_half_to_even() -> None:
    rule = a_rule(scale=1, objectives=["a", "b", "c", "d"], template="{a}{b}{c}{d}")
    half = PreferenceDirection({"a": 0.5, "b": -0.5, "c": 0.5, "d": 0.5})
    assert rule.condition(half).system == "0000"
    odd = a_rule(scale=3, objectives=["a", "b", "c", "d"], template="{a} {b} {c} {d}")
    assert odd.condition(half).system == "2 -2 2 2"


def test_objectives_that_are_not_named_weigh_nothing() -> None:
    assert a_rule().condition(PreferenceDirection({"a": 1.0})).system == "100 and 0"


def test_unknown_objectives_are_refused_with_the_known_ones() -> None:
    direction = PreferenceDirection({"honesty": 1.0})
    assert not DPA_V1.covers(direction)
    with pytest.raises(UnknownObjective, match="helpfulness, verbosity.*best_of") as caught:
        DPA_V1.condition(direction)
    assert caught.value.param == "direction.honesty"


def test_the_cone_has_its_axis_where_the_rule_says() -> None:
    rule = a_rule(axis={"a": 1.0, "b": 1.0}, cone_deg=30.0)
    assert rule.angle_deg(rule.at_angle(60)) == pytest.approx(15.0)
    rule.condition(rule.at_angle(75))
    with pytest.raises(InvalidDirection):
        rule.condition(rule.at_angle(0))


def test_angles_lie_between_two_objectives() -> None:
    rule = a_rule(objectives=["a", "b", "c"], template="{a}{b}{c}")
    with pytest.raises(InvalidDirection, match="3: give a direction by name"):
        rule.at_angle(10)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"template": "{a} only"}, r"no \{b\}"),
        ({"objectives": []}, "at least 1"),
        ({"axis": {"c": 1.0}}, "'c' is none of the objectives"),
        ({"reward_names": {"c": "x"}}, "'c' is none of the objectives"),
        ({"cone_deg": 0}, "greater than 0"),
        ({"cone_deg": 181}, "less than or equal to 180"),
        ({"scale": 0}, "greater than or equal to 1"),
        (
            {"objectives": ["a"], "template": "{a}", "trained_deg": (-1.0, 1.0)},
            "between two objectives",
        ),
        ({"cone": 45}, "Extra inputs"),
    ],
)
def test_rules_that_do_not_fit_together_are_refused(
    fields: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        a_rule(**fields)


def test_rules_survive_json() -> None:
    for name, rule in RULES.items():
        assert rule.name == name
        assert ConditioningRule.model_validate_json(rule.model_dump_json()) == rule
