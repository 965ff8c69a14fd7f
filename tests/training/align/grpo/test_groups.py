"""Moments and advantages in groups: NaN, constants, and what divides."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steerward.protocol.errors import InvalidRequest
from steerward.training.align.grpo.groups import (
    EPSILON,
    Scaling,
    batch_std,
    group_advantages,
    group_moments,
    leave_one_out,
    whitened,
    z_scores,
)

NAN = float("nan")


def test_moments_are_those_of_each_group_with_ddof_1() -> None:
    values_NK = torch.tensor([[1.0, 5.0], [3.0, 5.0], [2.0, 0.0], [2.0, 1.0]])
    moments = group_moments(values_NK, group_size=2)
    assert moments.mean_NK.tolist() == [[2.0, 5.0], [2.0, 5.0], [2.0, 0.5], [2.0, 0.5]]
    root = 2.0**0.5
    assert moments.std_NK[:, 0].tolist() == pytest.approx([root, root, 0.0, 0.0])
    assert moments.is_constant_NK[:, 0].tolist() == [False, False, True, True]


def test_nan_is_left_out_of_moments_and_stays() -> None:
    values_NK = torch.tensor([[1.0], [NAN], [3.0], [NAN], [NAN], [NAN]])
    scores_N = z_scores(values_NK, group_size=3)[:, 0]
    expected = 1.0 / (2.0**0.5 + EPSILON)
    assert scores_N[:3:2].tolist() == pytest.approx([-expected, expected])
    assert scores_N[[1, 3, 4, 5]].isnan().all()


def test_single_value_of_a_group_is_its_mean() -> None:
    scores_N = z_scores(torch.tensor([[7.0], [NAN]]), group_size=2)[:, 0]
    assert scores_N[0] == 0.0
    assert scores_N[1].isnan()


@settings(deadline=None)
@given(st.floats(-1e6, 1e6, width=32), st.integers(1, 9), st.sampled_from(["group", "batch"]))
def test_constant_column_gives_exactly_zero(value: float, size: int, scaling: Scaling) -> None:
    """The mean of equal floats may differ from them: the noise over epsilon is no advantage."""
    values_NK = torch.full((2 * size, 1), value)
    found = group_advantages(values_NK, group_size=size, scaling=[scaling])
    assert (found == 0).all()


def test_each_column_has_its_own_scaling() -> None:
    values_NK = torch.tensor([[0.0] * 3, [2.0] * 3, [0.0] * 3, [6.0] * 3])
    found = group_advantages(values_NK, group_size=2, scaling=("group", "batch", "none"))
    assert found[:, 2].tolist() == [-1.0, 1.0, -3.0, 3.0]
    root = 2.0**0.5
    assert found[1::2, 0].tolist() == pytest.approx([1 / root, 1 / root], abs=1e-3)
    std = float(batch_std(values_NK)[0, 1])
    assert found[1::2, 1].tolist() == pytest.approx([1 / std, 3 / std], abs=1e-3)


def test_whitened_batch_has_mean_0_and_deviation_1() -> None:
    found = whitened(torch.tensor([1.0, 2.0, 6.0, NAN]))
    assert found[:3].mean() == pytest.approx(0.0, abs=1e-6)
    assert found[:3].std() == pytest.approx(1.0, abs=1e-3)
    assert whitened(torch.tensor([4.0])).tolist() == [0.0]


def test_leaving_one_out_is_the_mean_less_by_a_factor() -> None:
    values_N = torch.tensor([1.0, 2.0, 6.0, NAN, 4.0, NAN])
    found = leave_one_out(values_N, group_size=3)
    assert found[:3].tolist() == pytest.approx([(v - 3.0) * 3 / 2 for v in (1.0, 2.0, 6.0)])
    assert found[3:].tolist() == [0.0, 0.0, 0.0]


def test_part_of_a_group_and_unknown_scaling_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="whole number of groups of 2"):
        z_scores(torch.zeros(3, 1), group_size=2)
    with pytest.raises(InvalidRequest, match="'std' is unknown"):
        group_advantages(torch.zeros(2, 1), group_size=2, scaling=["std"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidRequest, match="1 scalings were given for 2"):
        group_advantages(torch.zeros(2, 2), group_size=2, scaling=["none"])
