"""CGPO's advantages: limit cases of each optimiser, and that a violator never wins."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import logsigmoid

from steerward.training.align.cgpo.advantages import (
    Samples,
    calibrated_rewards,
    codpo_advantages,
    codpo_pairs,
    constrained_rewards,
    crpg_advantages,
    crraft_choices,
    kl_factor,
    restored_scale,
)

NO_LIMIT = math.inf


def samples_of(
    rewards: list[list[float]],
    satisfied: list[list[bool]] | None = None,
    *,
    baselines: list[float] | None = None,
    log_ratios: Any = None,
    tokens: int = 5,
) -> Samples:
    rewards_PK = torch.tensor(rewards, dtype=torch.float64)
    ratios_PK = torch.zeros_like(rewards_PK)
    return Samples(
        rewards_PK=rewards_PK,
        baselines_P=torch.tensor(baselines or [0.0] * len(rewards), dtype=torch.float64),
        satisfied_PK=torch.tensor(satisfied or [[True] * len(row) for row in rewards]),
        log_ratios_PK=ratios_PK if log_ratios is None else torch.tensor(log_ratios).double(),
        num_tokens_PK=torch.full_like(rewards_PK, tokens),
    )


def passes(*values: bool) -> Tensor:
    return torch.tensor(values)


def test_reward_of_the_baseline_itself_is_calibrated_to_a_half() -> None:
    rewards = torch.tensor([-7.0, 0.0, 4.0])
    assert calibrated_rewards(rewards, rewards).tolist() == [0.5] * 3


def test_violated_reward_is_zero_and_below_every_satisfied_one() -> None:
    calibrated = calibrated_rewards(torch.tensor([-30.0, 5.0]), torch.tensor([0.0, 0.0]))
    found = constrained_rewards(calibrated, passes(True, False))
    assert found[0] > found[1] == 0.0


def test_kl_factor_fades_to_zero_at_the_limit_and_stays_there() -> None:
    found = kl_factor(torch.tensor([-5.0, 0.0, 5.0, 10.0, 20.0]), max_kl=10.0)
    assert found.tolist() == [1.5, 1.0, 0.5, 0.0, 0.0]
    assert kl_factor(torch.tensor([3.0]), max_kl=NO_LIMIT).tolist() == [1.0]


def test_crpg_without_violation_and_limit_is_reinforce_on_calibrated_rewards() -> None:
    samples = samples_of([[1.0, -2.0], [0.5, 3.0]], baselines=[0.3, 1.0], log_ratios=[[9, -9]] * 2)
    found = crpg_advantages(samples, max_kl=NO_LIMIT)
    expected = torch.sigmoid(samples.rewards_PK - torch.tensor([[0.3], [1.0]]))
    torch.testing.assert_close(found, expected - expected.mean())


def test_crpg_takes_the_mean_of_the_batch_and_not_of_the_group() -> None:
    found = crpg_advantages(samples_of([[5.0, 5.0], [-5.0, -5.0]]), max_kl=NO_LIMIT)
    assert (found[0] > 0.4).all()
    assert (found[1] < -0.4).all()


def test_crpg_learns_nothing_where_all_are_violated() -> None:
    samples = samples_of([[1.0, 2.0]], [[False, False]])
    assert not crpg_advantages(samples, max_kl=3.0).any()


def test_crpg_sample_at_the_limit_counts_like_a_violated_one() -> None:
    at_limit = samples_of([[1.0, 2.0]], log_ratios=[[3.0, 0.0]])
    violated = samples_of([[1.0, 2.0]], [[False, True]])
    found, expected = (crpg_advantages(one, max_kl=3.0) for one in (at_limit, violated))
    torch.testing.assert_close(found, expected)


def codpo_loss(likelihoods_PK: Tensor, samples: Samples, beta: float, weight: float) -> Tensor:
    """Return the loss of the pairs, with gradients."""
    best_P, worst_P = (column.unsqueeze(-1) for column in codpo_pairs(samples))
    reference_PK = likelihoods_PK.detach() - samples.log_ratios_PK
    ratios_PK = likelihoods_PK - reference_PK
    h = beta * (ratios_PK.gather(-1, best_P) - ratios_PK.gather(-1, worst_P))
    likelihood = likelihoods_PK.gather(-1, best_P) / samples.num_tokens_PK.gather(-1, best_P)
    return -(logsigmoid(h) + weight * likelihood).sum()


def test_codpo_with_one_of_two_violated_equals_online_dpo() -> None:
    samples = samples_of(
        [[-1.0, 4.0], [2.0, 3.0]], [[True, False], [False, True]], log_ratios=[[1, 2], [0.5, -3]]
    )
    likelihoods = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    # DPO of the satisfied over the violated one, by its own formula.
    signs = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    h = 0.2 * ((likelihoods + samples.log_ratios_PK) * signs).sum(dim=-1)
    (expected,) = torch.autograd.grad(-logsigmoid(h).sum(), likelihoods)
    found = codpo_advantages(samples, beta=0.2, likelihood_weight=0.0)
    torch.testing.assert_close(-found, expected)


def test_codpo_equals_the_gradient_of_its_loss_with_the_likelihood() -> None:
    samples = samples_of(
        [[-1.0, -4.0, -2.0], [2.0, 3.0, 2.5]],
        [[True, False, True], [True, True, True]],
        log_ratios=[[1, 2, -1], [0.5, -3, 0.2]],
    )
    likelihoods = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(codpo_loss(likelihoods, samples, 0.4, 0.8), likelihoods)
    found = codpo_advantages(samples, beta=0.4, likelihood_weight=0.8)
    torch.testing.assert_close(-found, expected)


def test_codpo_skips_a_prompt_with_nothing_satisfied() -> None:
    samples = samples_of([[1.0, 2.0], [1.0, 2.0]], [[False, False], [True, False]])
    found = codpo_advantages(samples, beta=1.0, likelihood_weight=1.0)
    assert not found[0].any()
    assert found[1].all()


def test_codpo_without_violation_loses_by_the_lowest_reward() -> None:
    best, worst = codpo_pairs(samples_of([[0.0, -3.0, 2.0, -1.0]]))
    assert (best.tolist(), worst.tolist()) == ([2], [1])


def test_codpo_loser_is_violated_even_if_a_satisfied_reward_is_lower() -> None:
    best, worst = codpo_pairs(samples_of([[-9.0, 5.0, 4.0]], [[True, False, False]]))
    assert (best.tolist(), worst.tolist()) == ([0], [2])


@given(data=st.data())
def test_violator_never_wins_whatever_the_signs_of_rewards(data: Any) -> None:
    """Rewards multiplied by verdicts would let zero beat a negative reward."""
    count = data.draw(st.integers(2, 6))
    rewards = data.draw(st.lists(st.floats(-9, 9), min_size=count, max_size=count))
    satisfied = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    samples = samples_of([rewards], [satisfied])
    best, worst = codpo_pairs(samples)
    chosen = crraft_choices(samples, max_kl=1.0, baseline_satisfied_P=passes(False))
    if any(satisfied):
        top = max(reward for reward, passed in zip(rewards, satisfied, strict=True) if passed)
        assert satisfied[int(best)]
        assert rewards[int(best)] == top
        assert rewards[int(chosen.advantages_PK.argmax())] == top
        assert satisfied[int(chosen.advantages_PK.argmax())]
    assert not chosen.advantages_PK[~samples.satisfied_PK].any()
    if not all(satisfied):
        assert not satisfied[int(worst)]


def test_crraft_without_violation_and_limit_is_best_of_k_fine_tuning() -> None:
    rewards = [[1.0, 3.0, 2.0], [-1.0, -4.0, -2.0]]
    # Baselines so bad that R_calib is 1.
    samples = samples_of(rewards, baselines=[-500.0, -500.0])
    found = crraft_choices(samples, max_kl=NO_LIMIT, baseline_satisfied_P=passes(True, True))
    assert found.advantages_PK.tolist() == [[0, 1, 0], [1, 0, 0]]
    assert not found.baselines_P.any()


def test_crraft_weighs_the_best_by_its_calibrated_reward() -> None:
    samples = samples_of([[1.0, 3.0]], baselines=[2.0])
    found = crraft_choices(samples, max_kl=9.0, baseline_satisfied_P=passes(True))
    assert found.advantages_PK[0].tolist() == pytest.approx([0.0, 1 / (1 + math.exp(-1.0))])


def test_crraft_limit_removes_the_top_sample() -> None:
    samples = samples_of([[1.0, 3.0]], log_ratios=[[0.0, 4.1]])
    found = crraft_choices(samples, max_kl=4.0, baseline_satisfied_P=passes(True))
    assert found.advantages_PK[0, 0] > 0.0
    assert found.advantages_PK[0, 1] == 0.0


def test_crraft_falls_back_to_a_baseline_that_passes_and_else_skips() -> None:
    samples = samples_of([[1.0, 3.0]] * 2, [[False, True]] * 2, log_ratios=[[0, 9]] * 2)
    found = crraft_choices(samples, max_kl=4.0, baseline_satisfied_P=passes(True, False))
    assert not found.advantages_PK.any()
    assert found.baselines_P.tolist() == [0.5, 0.0]


def test_scale_undoes_what_the_loss_divides_by() -> None:
    scale = restored_scale(weight=2.0, batch=12, n=4, max_completion_length=10)
    assert scale / (12 * 10) == pytest.approx(2.0 / 4)
