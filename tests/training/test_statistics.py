"""Intervals that cover the truth, and features that are what their names say."""

from __future__ import annotations

import numpy as np
import pytest

from steerward.training.statistics import ClusterBootstrap, mean_within
from steerward.training.surface import NAMES, surface_features


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(120):
        margins = (generator.random(200) < 0.7) - 0.5
        bootstrap = ClusterBootstrap([str(i) for i in range(200)], resamples=200, seed=seed)
        accuracy = bootstrap.accuracy(margins)
        covered += accuracy.low <= 0.7 <= accuracy.high
    assert 0.88 <= covered / 120 <= 1.0


def test_pairs_of_one_prompt_widen_the_interval() -> None:
    """A hundred copies of one prompt are one observation."""
    margins = np.repeat([1.0, -1.0, 1.0, 1.0, -1.0], 40)
    prompts = np.repeat(["a", "b", "c", "d", "e"], 40).tolist()
    clustered = ClusterBootstrap(prompts, resamples=500, seed=0).accuracy(margins)
    alone = ClusterBootstrap([str(i) for i in range(200)], resamples=500, seed=0).accuracy(margins)
    assert clustered.value == alone.value == pytest.approx(0.6)
    assert clustered.high - clustered.low > 3 * (alone.high - alone.low)


def test_ties_count_as_half_and_masks_select() -> None:
    bootstrap = ClusterBootstrap(["a", "b", "c", "d"], resamples=100, seed=0)
    assert bootstrap.accuracy(np.array([0.0, 0.0, 1.0, -1.0])).value == 0.5
    masked = bootstrap.accuracy(
        np.array([1.0, 1.0, -1.0, -1.0]), np.array([True, True, False, False])
    )
    assert (masked.value, masked.pairs, masked.prompts) == (1.0, 2, 2)


def test_difference_is_paired() -> None:
    a, b = np.array([1.0, 1.0, -1.0, 1.0]), np.array([1.0, -1.0, -1.0, -1.0])
    value, low, high = ClusterBootstrap(list("abcd"), resamples=200, seed=0).difference(a, b)
    assert value == 0.5
    assert low >= 0.0
    assert high <= 1.0


def test_ties_count_the_same_in_accuracy_and_difference() -> None:
    a, b = np.array([1.0, 1.0, 0.0, -1.0]), np.array([0.0, 0.0, 1.0, -1.0])
    bootstrap = ClusterBootstrap(list("abcd"), resamples=200, seed=0)
    value, _, _ = bootstrap.difference(a, b)
    assert value == bootstrap.accuracy(a).value - bootstrap.accuracy(b).value


def test_mean_within_groups_weighs_by_rows_and_skips_the_undefined() -> None:
    assert mean_within({"a": (30, 0.5), "b": (10, 0.1), "c": (5, None)}) == pytest.approx(0.4)
    assert mean_within({"c": (5, None)}) is None


def test_surface_features_are_sixteen_and_count_what_they_say() -> None:
    text = "I'm sorry, I can't help.\n\n- one\n- two\n3) three! `x` ```py```?"
    features = dict(zip(NAMES, surface_features("help me", text), strict=True))
    assert len(NAMES) == 16
    assert features["list_items"] == pytest.approx(np.log1p(3))
    assert features["refusals"] == pytest.approx(np.log1p(2))
    assert features["code_marks"] == pytest.approx(np.log1p(2))
    assert features["questions"] == features["exclamations"] == pytest.approx(np.log1p(1))
    assert all(np.isfinite(surface_features("", "")))
