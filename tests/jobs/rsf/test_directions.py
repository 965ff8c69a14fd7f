"""Directions of an iteration: where they lie, whose names they have, and what is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerward.jobs.rsf.directions import directions_for, evaluation_directions
from steerward.protocol.conditioning import DPA_V1, ConditioningRule
from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.errors import InvalidDirection, InvalidRequest, UnknownObjective
from steerward.protocol.rsf import RsfSettings

THREE = ConditioningRule(name="three", objectives=["a", "b", "c"], template="{a} {b} {c}")
ONE = ConditioningRule(name="one", objectives=["a"], template="{a}")


def made(
    rule: ConditioningRule = DPA_V1, *, iteration: int = 1, seed: int = 0, **fields: object
) -> list[PreferenceDirection]:
    settings = RsfSettings.model_validate(fields)
    return directions_for(settings, rule, iteration=iteration, seed=seed)


def angles(directions: list[PreferenceDirection]) -> list[float]:
    return [DPA_V1.angle_deg(direction) for direction in directions]


def test_a_grid_goes_from_one_end_of_the_cone_to_the_other() -> None:
    assert angles(made(directions=4)) == pytest.approx([-45, -15, 15, 45])
    assert angles(made(directions=3, cone_deg=10.0)) == pytest.approx([-10, 0, 10])


def test_the_ends_of_a_grid_can_be_told_to_the_policy() -> None:
    assert [DPA_V1.condition(one).weights for one in made(directions=2)] == [
        {"helpfulness": 71, "verbosity": -71},
        {"helpfulness": 71, "verbosity": 71},
    ]


def test_a_grid_of_one_is_the_axis() -> None:
    rule = DPA_V1.model_copy(update={"axis": {"helpfulness": 1.0, "verbosity": -1.0}})
    assert angles(made(directions=1)) == [0.0]
    assert angles(made(rule, directions=1)) == pytest.approx([-45])


def test_a_grid_lies_around_the_axis() -> None:
    rule = DPA_V1.model_copy(
        update={"axis": {"helpfulness": 1.0, "verbosity": -1.0}, "cone_deg": 30.0}
    )
    assert angles(made(rule, directions=3)) == pytest.approx([-75, -45, -15])


def test_a_grid_over_the_whole_circle_has_no_direction_twice() -> None:
    rule = DPA_V1.model_copy(update={"cone_deg": 180.0, "trained_deg": None})
    assert angles(made(rule, directions=4)) == pytest.approx([-90, 0, 90, 180])


@pytest.mark.parametrize("spread", ["grid", "arc"])
def test_angles_need_two_objectives(spread: str) -> None:
    with pytest.raises(InvalidRequest, match="reads 3: a, b, c; set spread to dirichlet") as caught:
        made(THREE, directions=4, spread=spread)
    assert caught.value.param == "method.rsf.spread"


@given(seed=st.integers(-3, 100), iteration=st.integers(1, 5), num=st.integers(1, 20))
def test_an_arc_stays_inside_the_cone(seed: int, iteration: int, num: int) -> None:
    found = made(directions=num, spread="arc", cone_deg=20.0, seed=seed, iteration=iteration)
    assert len(found) == num
    assert all(abs(angle) <= 20.0 for angle in angles(found))
    assert found == made(
        directions=num, spread="arc", cone_deg=20.0, seed=seed, iteration=iteration
    )


@pytest.mark.parametrize("spread", ["arc", "dirichlet"])
def test_random_directions_are_new_in_each_iteration_and_for_each_seed(spread: str) -> None:
    found = made(directions=3, spread=spread)
    assert found == made(directions=3, spread=spread)
    assert found != made(directions=3, spread=spread, iteration=2)
    assert found != made(directions=3, spread=spread, seed=1)


def test_an_arc_is_even_over_the_cone() -> None:
    found = angles(made(directions=400, spread="arc"))
    assert abs(sum(found) / 400) < 4
    assert sum(abs(angle) > 22.5 for angle in found) == pytest.approx(200, abs=40)


@given(seed=st.integers(0, 50))
def test_dirichlet_directions_are_units_without_negative_weights(seed: int) -> None:
    for direction in made(THREE, directions=5, spread="dirichlet", seed=seed):
        assert list(direction.components) == ["a", "b", "c"]
        assert min(direction.components.values()) >= 0.0
        assert math.hypot(*direction.components.values()) == pytest.approx(1.0)


def test_dirichlet_weights_are_even_over_the_simplex() -> None:
    found = made(THREE, directions=1000, spread="dirichlet")
    shares = [d.components["a"] / sum(d.components.values()) for d in found]
    assert sum(shares) / 1000 == pytest.approx(1 / 3, abs=0.03)
    # Of the area of a triangle, a quarter lies beyond the middle of its height.
    assert sum(share > 0.5 for share in shares) / 1000 == pytest.approx(0.25, abs=0.05)


def test_dirichlet_directions_outside_the_cone_are_drawn_again() -> None:
    rule = THREE.model_copy(update={"cone_deg": 30.0})
    found = made(rule, directions=20, spread="dirichlet")
    assert len(found) == 20
    assert all(rule.allows(direction) for direction in found)
    narrow = made(rule, directions=5, spread="dirichlet", cone_deg=15.0)
    assert all(rule.angle_deg(direction) <= 15.0 for direction in narrow)


def test_a_cone_without_any_dirichlet_direction_is_refused() -> None:
    rule = THREE.model_copy(update={"axis": {"a": -1.0}, "cone_deg": 20.0})
    with pytest.raises(InvalidDirection, match="0 lie within 20 degrees") as caught:
        made(rule, directions=1, spread="dirichlet")
    assert caught.value.param == "method.rsf.spread"


def test_a_wider_cone_than_the_rules_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="cone_deg is 60, limit 45") as caught:
        made(directions=2, cone_deg=60.0)
    assert caught.value.param == "method.rsf.cone_deg"


def test_listed_directions_have_norm_1_and_the_rules_names() -> None:
    (found,) = made(directions=[{"helpsteer-helpfulness": 4.0, "verbosity": -3.0}])
    assert found.components == pytest.approx({"helpfulness": 0.8, "verbosity": -0.6})


def test_listed_directions_of_an_unknown_objective_are_refused_with_their_place() -> None:
    with pytest.raises(UnknownObjective, match="not trained on 'truth'") as caught:
        made(directions=[{"helpfulness": 1.0}, {"truth": 1.0}])
    assert caught.value.param == "method.rsf.directions[1].truth"


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        ({"helpfulness": -1.0}, "180.0 degrees from the axis"),
        ({"helpfulness": 0.0}, "non-zero length"),
        ({}, "is empty"),
    ],
    ids=["outside the cone", "zero", "empty"],
)
def test_listed_directions_that_cannot_be_are_refused_with_their_place(
    listed: dict[str, float], reason: str
) -> None:
    with pytest.raises(InvalidDirection, match=reason) as caught:
        made(directions=[{"helpfulness": 1.0}, listed])
    assert caught.value.param == "method.rsf.directions[1]"


def test_listed_directions_with_one_objective_twice_are_refused() -> None:
    with pytest.raises(InvalidDirection, match="another name of 'verbosity'"):
        made(directions=[{"verbosity": 0.1, "helpsteer-verbosity": 0.1, "helpfulness": 1.0}])


def test_evaluation_directions_are_a_grid_of_two_objectives() -> None:
    settings = RsfSettings(evaluation_directions=3, directions=8, spread="arc")
    assert angles(evaluation_directions(settings, DPA_V1, 0)) == pytest.approx([-45, 0, 45])


def test_evaluation_directions_of_more_objectives_are_random_and_stay() -> None:
    settings = RsfSettings(evaluation_directions=4, directions=4, spread="dirichlet")
    found = evaluation_directions(settings, THREE, 3)
    assert len(found) == 4
    assert found == evaluation_directions(settings, THREE, 3)
    assert found != directions_for(settings, THREE, iteration=1, seed=3)


def test_one_objective_is_evaluated_in_its_one_direction() -> None:
    (found,) = evaluation_directions(RsfSettings(evaluation_directions=5), ONE, 0)
    assert found.components == {"a": 1.0}


def test_a_cone_out_of_reach_is_given_up_soon_however_many_are_wanted() -> None:
    rule = THREE.model_copy(update={"cone_deg": 0.001})
    with pytest.raises(InvalidDirection, match=r"^of 20,000 random directions"):
        made(rule, directions=256, spread="dirichlet")
