"""Directions have norm 1; what cannot be one is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steerward.protocol.directions import PreferenceDirection, check_weights
from steerward.protocol.errors import InvalidDirection

components = st.dictionaries(
    st.text(min_size=1, max_size=5),
    st.floats(allow_nan=False, allow_infinity=False),
    min_size=1,
    max_size=6,
)


@settings(deadline=None)
@given(components)
def test_direction_has_norm_one_or_is_refused(given_components: dict[str, float]) -> None:
    norm = math.hypot(*given_components.values())
    if norm == 0.0 or math.isinf(norm):
        with pytest.raises(InvalidDirection):
            PreferenceDirection.from_mapping(given_components)
        return
    direction = PreferenceDirection.from_mapping(given_components)
    assert math.isclose(math.hypot(*direction.components.values()), 1.0, rel_tol=1e-9)
    for name, value in direction.components.items():
        assert math.copysign(1, value) == math.copysign(1, given_components[name])


@pytest.mark.parametrize(
    "bad", [{}, {"a": 0.0}, {"a": float("nan")}, {"a": float("inf")}, {"a": 1e308, "b": 1.7e308}]
)
def test_zero_nan_and_infinite_directions_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InvalidDirection) as caught:
        PreferenceDirection.from_mapping(bad)
    assert (caught.value.param or "").startswith("direction")


@given(st.floats(min_value=-720, max_value=720))
def test_an_angle_turns_from_the_first_objective_towards_the_second(angle: float) -> None:
    components = PreferenceDirection.from_angle(angle, "a", "b").components
    assert math.isclose(math.hypot(*components.values()), 1.0, rel_tol=1e-12)
    read_back = math.degrees(math.atan2(components["b"], components["a"]))
    assert abs((read_back - angle + 180) % 360 - 180) < 1e-9


def test_angles_of_the_axes_are_the_objectives() -> None:
    assert PreferenceDirection.from_angle(0, "a", "b").components == {"a": 1.0, "b": 0.0}
    upwards = PreferenceDirection.from_angle(90, "a", "b").components
    assert upwards == pytest.approx({"a": 0.0, "b": 1.0}, abs=1e-15)


@pytest.mark.parametrize("angle", [float("nan"), float("inf")])
def test_angles_that_are_not_finite_are_refused(angle: float) -> None:
    with pytest.raises(InvalidDirection, match="finite number of degrees") as caught:
        PreferenceDirection.from_angle(angle, "a", "b")
    assert caught.value.param == "angle"


def test_weights_are_used_as_given() -> None:
    assert check_weights({"a": 2.0, "b": 0.0}) == {"a": 2.0, "b": 0.0}


@pytest.mark.parametrize("bad", [{}, {"a": 0.0}, {"a": -0.1}, {"a": float("nan")}])
def test_negative_zero_and_nan_weights_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InvalidDirection):
        check_weights(bad)


@pytest.mark.parametrize("value", [-1.0, float("nan")])
def test_long_names_are_cut_when_they_are_told_back(value: float) -> None:
    with pytest.raises(InvalidDirection) as caught:
        check_weights({"z" * 100_000: value})
    assert len(caught.value.message) < 300
    assert len(caught.value.param or "") < 100
