"""Fronts and the volume that they dominate."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerward.jobs.rsf.statistics import hypervolume as area_of_two
from steerward.training.align.report.hypervolume import hypervolume, non_dominated

COORDINATE = st.integers(-1, 4)


@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.tuples(*[COORDINATE] * n), max_size=6)))
def test_volume_counts_each_dominated_cube_once(points: list[tuple[int, ...]]) -> None:
    num = len(points[0]) if points else 2
    cubes = {
        cube
        for point in points
        for cube in itertools.product(*(range(max(0, side)) for side in point))
    }
    assert hypervolume(points, [0] * num) == len(cubes)


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), max_size=8))
def test_volume_of_two_objectives_equals_that_of_the_jobs(
    points: list[tuple[float, float]],
) -> None:
    assert hypervolume(points, (-1, 0.5)) == pytest.approx(area_of_two(points, (-1, 0.5)))


def test_volume_does_not_depend_on_order_and_grows_with_a_better_point() -> None:
    draw = random.Random(0)
    points = [tuple(draw.random() for _ in range(5)) for _ in range(8)]
    volume = hypervolume(points, [0.0] * 5)
    assert hypervolume(points[::-1], [0.0] * 5) == pytest.approx(volume)
    better = tuple(side + 0.1 for side in points[0])
    assert hypervolume([*points, better], [0.0] * 5) > volume
    assert hypervolume([(2.0, 3.0, 5.0)], [1.0, 1.0, 1.0]) == math.prod([1, 2, 4])


def test_points_of_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="3 coordinates"):
        hypervolume([(1.0, 2.0)], [0.0, 0.0, 0.0])


def test_front_keeps_what_nothing_beats_and_equal_points_once() -> None:
    points = [(0, 3), (1, 1), (2, 2), (3, 0), (2, 2), (0, 2)]
    assert non_dominated(points) == [0, 2, 3]
