"""Losses of MAPL against their formulas, limits and symmetries."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import logsigmoid

from steerward.protocol.errors import InvalidRequest
from steerward.training.align.mapl.loss import (
    INTER,
    INTRA,
    PREFERENCE,
    implicit_rewards,
    inter_losses,
    intra_losses,
    part_weights,
    preference_losses,
    row_gaps,
    total_loss,
)

_NUMBERS = st.floats(-20, 20)
_FOUR = st.lists(st.tuples(_NUMBERS, _NUMBERS, _NUMBERS, _NUMBERS), min_size=1, max_size=5)


def _columns(rows: list[tuple[float, ...]]) -> list[Tensor]:
    return list(torch.tensor(rows, dtype=torch.float64).T)


def _inter(corners: list[Tensor], directions: Tensor) -> Tensor:
    with_w, with_l, without_w, without_l = corners
    return inter_losses(
        with_w,
        with_l,
        without_chosen_N=without_w,
        without_rejected_N=without_l,
        directions_N=directions,
    )


def test_intra_loss_of_a_reward_model_is_bradley_terry_on_both_conversations() -> None:
    chosen, rejected = torch.tensor([1.5, -0.5]), torch.tensor([0.5, 0.25])
    expected = [math.log1p(math.exp(-1.0)), math.log1p(math.exp(0.75))]
    assert intra_losses(chosen, rejected).tolist() == pytest.approx(expected)
    assert torch.equal(intra_losses(chosen, rejected), preference_losses(chosen, rejected))


def test_intra_loss_of_equal_prompts_is_log_2() -> None:
    rewards = torch.randn(4)
    assert intra_losses(rewards, rewards).tolist() == pytest.approx([math.log(2)] * 4)


def test_intra_loss_of_a_policy_is_the_direct_formula() -> None:
    logps, reference = torch.randn(2, 5), torch.randn(2, 5)
    sides = [implicit_rewards(logps[i], reference[i], beta=0.3) for i in (0, 1)]
    ratios = logps - reference
    expected = -logsigmoid(0.3 * ratios[0] - 0.3 * ratios[1])
    torch.testing.assert_close(intra_losses(*sides), expected)


def test_policy_that_is_its_reference_has_intra_loss_log_2() -> None:
    logps_w, logps_l = torch.randn(3), torch.randn(3)
    sides = [implicit_rewards(logps, logps, beta=0.1) for logps in (logps_w, logps_l)]
    assert intra_losses(*sides).tolist() == pytest.approx([math.log(2)] * 3)


@given(_FOUR)
def test_inter_loss_of_equal_prompts_is_log_2(rows: list[tuple[float, ...]]) -> None:
    chosen, rejected, _, _ = _columns(rows)
    losses = _inter([chosen, rejected, chosen, rejected], torch.ones(len(rows)))
    assert losses.tolist() == pytest.approx([math.log(2)] * len(rows))


@given(_FOUR, st.sampled_from([1, -1]))
def test_swapping_responses_and_direction_leaves_the_inter_loss(
    rows: list[tuple[float, ...]], direction: int
) -> None:
    corners = _columns(rows)
    directions = torch.full((len(rows),), direction)
    swapped = [corners[1], corners[0], corners[3], corners[2]]
    torch.testing.assert_close(_inter(corners, directions), _inter(swapped, -directions))


@given(_FOUR, _NUMBERS, _NUMBERS)
def test_inter_loss_ignores_what_depends_on_a_prompt_alone(
    rows: list[tuple[float, ...]], of_with: float, of_without: float
) -> None:
    """So beta * log Z(x), which a policy does not know, cancels."""
    corners = _columns(rows)
    moved = [*(one + of_with for one in corners[:2]), *(one + of_without for one in corners[2:])]
    directions = torch.ones(len(rows))
    torch.testing.assert_close(_inter(corners, directions), _inter(moved, directions))


def test_direction_says_whether_the_gap_should_grow() -> None:
    corners = [torch.tensor([2.0]), torch.tensor([0.0]), torch.tensor([1.0]), torch.tensor([0.0])]
    grows, shrinks = (_inter(corners, torch.tensor([sign])).item() for sign in (1, -1))
    assert grows == pytest.approx(math.log1p(math.exp(-1)))
    assert shrinks == pytest.approx(math.log1p(math.exp(1)))


def test_rows_of_a_batch_have_the_losses_of_their_parts() -> None:
    parts = torch.tensor([INTER, PREFERENCE, INTRA, INTER])
    directions = torch.tensor([1, 1, 1, -1])
    chosen, rejected = torch.randn(2, 6)
    found = -logsigmoid(row_gaps(chosen, rejected, parts_N=parts, directions_N=directions))
    inter = inter_losses(
        chosen[[0, 3]],
        rejected[[0, 3]],
        without_chosen_N=chosen[4:],
        without_rejected_N=rejected[4:],
        directions_N=directions[[0, 3]],
    )
    others = preference_losses(chosen[1:3], rejected[1:3])
    torch.testing.assert_close(found, torch.stack([inter[0], *others, inter[1]]))


def test_rows_without_inter_rows_need_no_pairs_behind_them() -> None:
    chosen, rejected = torch.randn(2, 2)
    parts, directions = torch.tensor([INTRA, PREFERENCE]), torch.ones(2)
    found = -logsigmoid(row_gaps(chosen, rejected, parts_N=parts, directions_N=directions))
    assert torch.equal(found, preference_losses(chosen, rejected))


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    st.floats(0, 3),
    st.floats(0, 3),
)
def test_weighted_mean_over_all_rows_is_the_total_loss(
    counts: tuple[int, int, int], lambda_intra: float, lambda_inter: float
) -> None:
    weights = part_weights(counts, lambda_intra=lambda_intra, lambda_inter=lambda_inter)
    losses = [torch.rand(count, dtype=torch.float64) for count in counts]
    mean = torch.cat([w * one for w, one in zip(weights, losses, strict=True)]).mean()
    expected = total_loss(
        *(one.mean() for one in losses), lambda_intra=lambda_intra, lambda_inter=lambda_inter
    )
    torch.testing.assert_close(mean, expected, rtol=1e-5, atol=1e-6)


def test_part_without_rows_is_refused_unless_its_weight_is_0() -> None:
    with pytest.raises(InvalidRequest, match="no inter row, and lambda_inter is 1"):
        part_weights([3, 3, 0], lambda_intra=1.0, lambda_inter=1.0)
    weights = part_weights([3, 3, 0], lambda_intra=0.5, lambda_inter=0.0)
    assert weights.tolist() == [2.0, 1.0, 0.0]


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_weight_that_is_no_weight_is_refused(weight: float) -> None:
    with pytest.raises(InvalidRequest, match="lambda_intra"):
        part_weights([1, 1, 1], lambda_intra=weight, lambda_inter=1.0)
