"""Means with intervals, the area of a front, and signs of cheating."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerward.jobs.rsf.statistics import (
    difference_interval,
    distinct_share,
    hypervolume,
    mean_interval,
    mean_repetition,
    mean_words,
    repetition,
)


def test_an_interval_holds_its_mean_and_is_the_same_again() -> None:
    values = np.random.default_rng(0).normal(size=100)
    found = mean_interval(values)
    assert found.low < found.mean < found.high
    assert found.mean == pytest.approx(values.mean())
    assert found == mean_interval(values)
    assert found != mean_interval(values, seed=1)


def test_an_interval_is_as_wide_as_the_standard_error_says() -> None:
    values = np.random.default_rng(0).normal(size=400)
    found = mean_interval(values)
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_what_was_drawn_for_one_prompt_stays_together() -> None:
    """Ten directions of a prompt that agree are not ten prompts."""
    values = np.random.default_rng(0).normal(size=50)
    together = mean_interval(np.repeat(values[:, None], 10, axis=1))
    alone = mean_interval(values)
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high))


def test_a_wider_level_makes_a_wider_interval() -> None:
    values = np.random.default_rng(0).normal(size=50)
    narrow, wide = mean_interval(values, level=0.5), mean_interval(values, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize("values", [[], [1.0, float("nan")]], ids=["empty", "not a number"])
def test_no_interval_without_numbers(values: list[float]) -> None:
    with pytest.raises(ValueError, match="finite values of at least one prompt"):
        mean_interval(values)


def test_pairing_takes_out_what_prompts_have_in_common() -> None:
    numbers = np.random.default_rng(0)
    hard = 10 * numbers.normal(size=60)
    found = difference_interval(hard + 0.5 + 0.1 * numbers.normal(size=60), hard)
    assert found.low > 0.4
    assert found.high < 0.6


def test_unequal_numbers_of_prompts_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="3 prompts cannot be paired with 2"):
        difference_interval([1, 2, 3], [1, 2])


@pytest.mark.parametrize(
    ("points", "area"),
    [
        ([(1, 1)], 1.0),
        ([(2, 1), (1, 2)], 3.0),
        ([(2, 1), (1, 2), (1, 1)], 3.0),
        ([(-1, 5), (5, -1)], 0.0),
        ([], 0.0),
    ],
)
def test_hypervolume_is_the_area_that_points_dominate(
    points: list[tuple[float, float]], area: float
) -> None:
    assert hypervolume(points, (0, 0)) == area


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=8))
def test_hypervolume_counts_each_dominated_square_once(points: list[tuple[int, int]]) -> None:
    squares = sum(any(x < a and y < b for a, b in points) for x in range(8) for y in range(8))
    assert hypervolume(points, (0, 0)) == squares


def test_repetition_is_the_share_of_sequences_that_came_before() -> None:
    assert repetition("a b c a b c") == pytest.approx(1 / 4)
    assert repetition("a b") == 0.0
    assert mean_repetition(["a b c a b c", "a"]) == pytest.approx(1 / 8)
    assert mean_repetition([]) == 0.0


def test_distinct_share_counts_over_all_texts() -> None:
    assert distinct_share(["a b c", "a b d"], 1) == pytest.approx(4 / 6)
    assert distinct_share(["a b c", "a b d"], 2) == pytest.approx(3 / 4)
    assert distinct_share(["a"], 2) == 0.0


def test_length_is_told_in_words() -> None:
    assert mean_words(["a b c", "a"]) == 2.0
    assert mean_words([]) == 0.0


def test_an_interval_does_not_depend_on_how_many_means_are_made_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.random.default_rng(0).normal(size=37)
    numbers = np.random.default_rng(0)
    means = [values[numbers.integers(0, 37, 37)].mean() for _ in range(2000)]
    low, high = np.quantile(means, [0.025, 0.975])
    for most in (1, 1000, 1_000_000):
        monkeypatch.setattr("steerward.jobs.rsf.statistics._MOST_INDICES", most)
        found = mean_interval(values)
        assert (found.low, found.high) == (low, high)
