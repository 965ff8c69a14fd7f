"""PAMA's advantages, by sample, token and batch, and the constant that is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from steerward.protocol.errors import InvalidRequest
from steerward.training.align.grpo.groups import z_scores
from steerward.training.align.grpo.pama import (
    combine,
    noon,
    refuse_batch_constants,
    within_clip,
)

NAN = float("nan")


def standardised(num_objectives: int, *, seed: int = 0, groups: int = 16, size: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(groups * size, num_objectives, generator=generator, dtype=torch.float64)
    return z_scores(rewards, group_size=size)


def test_least_objective_decides_after_noon() -> None:
    rows = torch.tensor([[0.5, 2.0], [-0.5, 2.0], [-1.0, -2.0], [0.0, 2.0]])
    combined = combine(noon(rows))
    assert combined.advantages.tolist() == [0.5, 0.0, 0.0, 0.0]
    assert combined.weights[0].tolist() == [1.0, 0.0]


def test_without_noon_the_theorem_is_whole() -> None:
    combined = combine(torch.tensor([[0.5, 2.0], [-0.5, 2.0], [-1.0, -2.0]]))
    assert combined.advantages.tolist() == [0.5, 0.0, -1.0]
    assert combined.weights[1].tolist() == pytest.approx([0.8, 0.2])


def test_one_objective_is_noon_ppo() -> None:
    advantages_N1 = standardised(1)
    combined = combine(noon(advantages_N1))
    assert torch.equal(combined.advantages, advantages_N1[:, 0].clamp(min=0))
    assert (combined.weights == 1).all()


def test_order_of_objectives_does_not_matter() -> None:
    advantages_NK = noon(standardised(4))
    order = torch.tensor([2, 0, 3, 1])
    one, other = combine(advantages_NK), combine(advantages_NK[:, order])
    assert torch.equal(one.advantages, other.advantages)
    assert torch.allclose(one.weights[:, order], other.weights)


def test_objective_that_does_not_apply_has_no_say() -> None:
    combined = combine(torch.tensor([[NAN, 2.0, 3.0], [NAN, NAN, NAN], [1.0, 2.0, 3.0]]))
    assert combined.advantages.tolist() == [2.0, 0.0, 1.0]
    assert combined.weights.tolist() == [[0.0, 1.0, 0.0], [0.0] * 3, [1.0, 0.0, 0.0]]


def test_independent_objectives_leave_few_samples() -> None:
    for num_objectives in (1, 2, 3):
        combined = combine(noon(standardised(num_objectives, groups=500)))
        share = float((combined.advantages > 0).double().mean())
        assert share == pytest.approx(2.0**-num_objectives, abs=0.03)


def test_token_weights_are_those_of_each_token() -> None:
    advantages_NTK = standardised(3).reshape(16, 8, 3)
    combined = combine(advantages_NTK, granularity="token")
    flat = combine(advantages_NTK.reshape(-1, 3))
    assert torch.equal(combined.advantages.reshape(-1), flat.advantages)
    assert combined.weights.shape == (16, 8, 3)


def test_clip_drops_the_same_tokens_for_all_objectives() -> None:
    advantages_N1K = noon(standardised(3))[:, None]
    ratios_NT = torch.linspace(0.5, 1.5, 128 * 4, dtype=torch.float64).reshape(128, 4)
    spread_NTK = advantages_N1K.expand(-1, 4, -1)
    masked = combine(within_clip(spread_NTK, ratios_NT, epsilon_high=0.2), granularity="token")
    by_sample_N1 = combine(advantages_N1K[:, 0]).advantages[:, None]
    assert torch.equal(masked.advantages, by_sample_N1 * (ratios_NT <= 1.2))


def test_clip_is_that_of_the_policy_gradient() -> None:
    """The gradient of Noon PPO's clipped loss is that of the ratio with I(A) in front."""
    ratios = torch.tensor([0.5, 1.0, 1.1, 1.3], dtype=torch.float64, requires_grad=True)
    advantage = torch.full((4,), 0.7, dtype=torch.float64)
    torch.min(ratios * advantage, ratios.clamp(0.8, 1.2) * advantage).sum().backward()
    expected = within_clip(advantage[:, None], ratios.detach(), epsilon_high=0.2)[:, 0]
    assert torch.equal(ratios.grad, expected)  # pyright: ignore[reportArgumentType]


def test_batch_of_one_sample_is_the_scalar_case() -> None:
    for row in [[1.0, 2.0, 4.0], [-3.0, -1.0, -2.0], [-1.0, 2.0, 0.5], [0.3, 2.0], [-1.0, 3.0]]:
        advantages_NK = torch.tensor([row], dtype=torch.float64)
        found = combine(advantages_NK, granularity="batch").advantages
        assert found.tolist() == pytest.approx(combine(advantages_NK).advantages.tolist(), abs=1e-6)


def test_equal_objectives_share_weight_without_changing_the_batch() -> None:
    advantages_NK = noon(standardised(2))
    doubled_NK = advantages_NK[:, [0, 1, 1]]
    one, two = combine(advantages_NK, granularity="batch"), combine(doubled_NK, granularity="batch")
    assert torch.allclose(one.advantages, two.advantages, atol=1e-6)
    assert two.weights[1] == pytest.approx(float(two.weights[2]))
    assert two.weights[1:].sum() == pytest.approx(float(one.weights[1]), abs=1e-6)


def test_orthogonal_objectives_are_weighted_by_inverse_squared_length() -> None:
    advantages_NK = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 4.0]]).double()
    weights = combine(advantages_NK, granularity="batch").weights
    inverse = torch.tensor([1.0, 1 / 4, 1 / 16]).double()
    assert weights.numpy() == pytest.approx((inverse / inverse.sum()).numpy(), abs=1e-6)


def expected_gradient(advantage_of: dict[int, float]) -> Tensor:
    """Expected policy gradient of a policy of four actions, all of them enumerated."""
    logits = torch.tensor([0.3, -1.0, 0.8, 0.1], dtype=torch.float64, requires_grad=True)
    log_p = logits.log_softmax(dim=-1)
    total = sum(
        (float(log_p[a].detach().exp()) * advantage_of[a] * log_p[a] for a in range(4)),
        start=torch.zeros((), dtype=torch.float64),
    )
    (gradient,) = torch.autograd.grad(total, logits)
    return gradient


def test_constant_of_the_batch_has_no_expected_gradient_and_is_refused() -> None:
    """A public re-implementation takes the least of the objectives' batch means for every token."""
    advantages_NK = noon(torch.tensor([[1.0, 0.2], [-1.0, 0.4], [0.5, 0.9], [-0.5, 0.1]]).double())
    constant = float(advantages_NK.mean(dim=0).amin())
    assert constant > 0
    assert expected_gradient(dict.fromkeys(range(4), constant)).abs().amax() < 1e-15
    for granularity in ("batch", "sample"):
        found = combine(advantages_NK, granularity=granularity).advantages
        gradient = expected_gradient(dict(enumerate(found.tolist())))
        assert gradient.abs().amax() > 1e-3
    spread_NK = advantages_NK.mean(dim=0).expand_as(advantages_NK)
    with pytest.raises(InvalidRequest, match="no expected gradient"):
        combine(spread_NK, granularity="batch")
    with pytest.raises(InvalidRequest, match="objective 1 has the advantage 2"):
        refuse_batch_constants(torch.tensor([[0.0, 2.0], [0.0, 2.0]]))


def test_axes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="'token' got advantages with 2 axes"):
        combine(torch.zeros(2, 2), granularity="token")
