"""Neighbours are near the target, in the cone, spread, and the same for the same seed."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steerward.policy.neighbours import draw_on_cap, neighbours_of, spread
from steerward.protocol.conditioning import DPA_V1, ConditioningRule
from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.errors import InvalidDirection, InvalidRequest

FOUR = ConditioningRule(
    name="four", objectives=["a", "b", "c", "d"], template="{a} {b} {c} {d}", cone_deg=40.0
)


def angles(target_deg: float, *, count: int, force: bool = False) -> list[float]:
    found = neighbours_of(
        DPA_V1.at_angle(target_deg), DPA_V1, count=count, within_deg=30.0, force=force
    )
    return [DPA_V1.angle_deg(direction) for direction in found]


def between(first: PreferenceDirection, second: PreferenceDirection) -> float:
    names = {*first.components, *second.components}
    cosine = sum(first.components.get(n, 0.0) * second.components.get(n, 0.0) for n in names)
    return math.degrees(math.acos(min(1.0, cosine)))


@pytest.mark.parametrize(
    ("target", "count", "expected"),
    [
        (0, 5, [-30, -15, 0, 15, 30]),
        (0, 4, [-30, -10, 10, 30]),
        (0, 1, [0]),
        (10, 3, [-20, 10, 40]),
        # The cone ends at 45 degrees: the other side gets what is cut off.
        (-45, 5, [-45, -37.5, -30, -22.5, -15]),
        (-30, 5, [-45, -30, -20, -10, 0]),
        (-30, 4, [-45, -30, -15, 0]),
        # From outside it, what is near enough and inside.
        (60, 3, [30, 37.5, 45]),
        (60, 1, [45]),
    ],
)
def test_neighbours_in_a_plane_are_evenly_spaced_in_the_cone(
    target: float, count: int, expected: list[float]
) -> None:
    assert angles(target, count=count) == pytest.approx(expected)


def test_forced_neighbours_leave_the_cone() -> None:
    assert angles(-45, count=5, force=True) == pytest.approx([-75, -60, -45, -30, -15])
    # Around the point opposite of the axis too.
    turned = angles(170, count=3, force=True)
    assert [angle % 360 for angle in turned] == pytest.approx([140, 170, 200])


@pytest.mark.parametrize("target", [76.0, -90.0, 180.0])
def test_targets_without_neighbours_in_the_cone_are_refused(target: float) -> None:
    with pytest.raises(InvalidDirection, match=r"ends at 45.*at most 30 away.*best_of"):
        angles(target, count=5)


def test_neighbours_have_the_rules_names() -> None:
    target = PreferenceDirection({"helpsteer-helpfulness": 1.0})
    for direction in neighbours_of(target, DPA_V1, count=3, within_deg=30.0):
        assert list(direction.components) == ["helpfulness", "verbosity"]


def test_the_cone_of_another_axis_bounds_neighbours() -> None:
    rule = ConditioningRule(
        name="r", objectives=["a", "b"], template="{a}{b}", axis={"b": 1.0}, cone_deg=20.0
    )
    found = neighbours_of(rule.at_angle(100), rule, count=3, within_deg=30.0)
    # Of 70 to 110 degrees more lies below 100 than above.
    assert [
        round(math.degrees(math.atan2(d.components["b"], d.components["a"]))) for d in found
    ] == [70, 85, 100]


@given(
    st.floats(min_value=-75, max_value=75),
    st.integers(min_value=1, max_value=20),
    st.floats(min_value=0.1, max_value=90),
)
def test_neighbours_in_a_plane_are_distinct_near_and_in_the_cone(
    target: float, count: int, within: float
) -> None:
    at = DPA_V1.at_angle(target)
    try:
        found = neighbours_of(at, DPA_V1, count=count, within_deg=within)
    except InvalidDirection:
        assert abs(target) - within > 45
        return
    assert len(found) == count
    turned = [DPA_V1.angle_deg(direction) for direction in found]
    assert all(abs(angle) <= 45 + 1e-6 for angle in turned)
    assert all(abs(angle - target) <= within + 1e-6 for angle in turned)
    assert turned == sorted(turned)
    width = min(45, target + within) - max(-45, target - within)
    if width > 1e-3:
        assert len({round(angle, 7) for angle in turned}) == count
    if count % 2 and abs(target) <= 45:
        assert min(abs(angle - target) for angle in turned) < 1e-6


@given(
    st.floats(min_value=-10, max_value=10),
    st.floats(min_value=0, max_value=10),
    st.floats(min_value=0, max_value=10),
    st.integers(min_value=1, max_value=30),
)
def test_spread_stays_between_and_reaches_the_ends(
    target: float, left: float, right: float, count: int
) -> None:
    values = spread(target, target - left, target + right, count)
    assert len(values) == count
    assert values == sorted(values)
    assert min(values) >= target - left - 1e-9
    assert max(values) <= target + right + 1e-9
    if count % 2:
        assert target in values


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.floats(min_value=-1, max_value=1), min_size=4, max_size=4),
    st.integers(min_value=1, max_value=9),
    st.integers(),
)
def test_neighbours_on_the_sphere_are_near_and_in_the_cone(
    values: list[float], count: int, seed: int
) -> None:
    # The first is the axis: this keeps the target near enough to the cone.
    components = dict(zip(FOUR.objectives, [2.0, *values[1:]], strict=True))
    target = PreferenceDirection.from_mapping(components)
    found = neighbours_of(target, FOUR, count=count, within_deg=30.0, seed=seed)
    assert len(found) == count
    for direction in found:
        assert math.hypot(*direction.components.values()) == pytest.approx(1.0)
        assert between(direction, target) <= 30.0 + 1e-4
        assert FOUR.angle_deg(direction) <= 40.0 + 1e-4
        FOUR.condition(direction)
    if FOUR.angle_deg(target) <= 40.0:
        assert found[0].components == pytest.approx(target.components)
    again = neighbours_of(target, FOUR, count=count, within_deg=30.0, seed=seed)
    assert [d.components for d in again] == [d.components for d in found]


def test_other_seeds_draw_other_neighbours() -> None:
    target = PreferenceDirection({"a": 1.0})
    first, second = (
        neighbours_of(target, FOUR, count=3, within_deg=30.0, seed=seed) for seed in (1, 2)
    )
    assert first[0] == second[0]
    assert first[1] != second[1]


def test_many_objectives_and_a_narrow_cone_have_neighbours_too() -> None:
    names = [f"o{i}" for i in range(19)]
    rule = ConditioningRule(
        name="many", objectives=names, template="".join(f"{{{n}}}" for n in names), cone_deg=10.0
    )
    for target in ({"o0": 1.0}, {"o0": 1.0, "o1": math.tan(math.radians(10.0))}):
        direction = PreferenceDirection.from_mapping(target)
        found = neighbours_of(direction, rule, count=5, within_deg=30.0, seed=0)
        assert len({tuple(d.components.values()) for d in found}) == 5
        assert all(rule.angle_deg(d) <= 10.0 + 1e-5 for d in found)


def test_sphere_targets_without_neighbours_in_the_cone_are_refused() -> None:
    with pytest.raises(InvalidDirection, match="90.0 degrees"):
        neighbours_of(PreferenceDirection({"b": 1.0}), FOUR, count=3, within_deg=30.0, seed=0)


def test_one_objective_has_no_neighbours() -> None:
    rule = ConditioningRule(name="one", objectives=["a"], template="{a}")
    with pytest.raises(InvalidRequest, match="one objective"):
        neighbours_of(PreferenceDirection({"a": 1.0}), rule, count=3, within_deg=30.0)


@pytest.mark.parametrize(("dimensions", "radius"), [(3, 30.0), (3, 120.0), (4, 60.0)])
def test_draws_fill_a_cap_evenly(dimensions: int, radius: float) -> None:
    """The share of draws within half of the radius is that of the area, which is known."""
    rng = random.Random(0)
    centre = [1.0] + [0.0] * (dimensions - 1)
    points = [draw_on_cap(centre, radius, rng=rng) for _ in range(4000)]
    polar = [math.degrees(math.acos(max(-1.0, min(1.0, point[0])))) for point in points]
    assert max(polar) <= radius + 1e-9
    share = sum(angle <= radius / 2 for angle in polar) / len(polar)

    def area(degrees: float) -> float:
        at = math.radians(degrees)
        return 1 - math.cos(at) if dimensions == 3 else at / 2 - math.sin(2 * at) / 4

    # Four standard deviations of a share of 4,000 draws are at most 0.032.
    assert share == pytest.approx(area(radius / 2) / area(radius), abs=0.032)
    for axis in range(1, dimensions):
        mean = sum(point[axis] for point in points) / len(points)
        assert abs(mean) < 0.05
