"""Advantages of several rewards: what each way weighs, and what it leaves out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from steerward.protocol.errors import InvalidDirection, InvalidRequest
from steerward.training.align.grpo.aggregation import (
    Aggregation,
    Gram,
    Min,
    NormalizeThenSum,
    SoftMin,
    SumThenNormalize,
    gdpo,
    mo_grpo,
)
from steerward.training.align.grpo.groups import whitened, z_scores

NAN = float("nan")
ONES = torch.ones(2)
EVERY: dict[str, Aggregation] = {
    "sum": SumThenNormalize(),
    "gdpo": gdpo(),
    "mo-grpo": mo_grpo(),
    "softmin": SoftMin(2.0),
    "min": Min(),
    "gram": Gram(),
}
ways = pytest.mark.parametrize("way", EVERY.values(), ids=EVERY)


def rewards(num_objectives: int = 2, *, seed: int = 0, groups: int = 6, size: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(groups * size, num_objectives, generator=generator, dtype=torch.float64)


def advantages(
    way: Aggregation, rewards_NK: Tensor, weights_K: Tensor | None = None, *, size: int = 4
) -> Tensor:
    weights_K = torch.ones(rewards_NK.shape[-1]) if weights_K is None else weights_K
    return way(rewards_NK, group_size=size, weights_K=weights_K).advantages_N


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 99), st.floats(0.1, 50.0), st.floats(-20.0, 20.0))
def test_positive_affine_changes_of_a_reward_change_nothing(
    seed: int, slope: float, offset: float
) -> None:
    before_NK = rewards(seed=seed)
    after_NK = before_NK.clone()
    after_NK[:, 1] = slope * after_NK[:, 1] + offset
    for name in ("gdpo", "mo-grpo", "softmin", "min", "gram"):
        way = type(EVERY[name])(**{**_fields(EVERY[name]), "epsilon": 0.0})
        found = advantages(way, after_NK)
        assert found.numpy() == pytest.approx(advantages(way, before_NK).numpy(), abs=1e-5)


def _fields(way: Aggregation) -> dict[str, object]:
    return {name: getattr(way, name) for name in type(way).__dataclass_fields__}  # pyright: ignore[reportAttributeAccessIssue]


def test_decoupled_groups_tell_one_difference_from_two() -> None:
    """The GDPO paper's example; summed first, both groups have the same advantages."""
    rewards_NK = torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
    apart = advantages(mo_grpo(), rewards_NK, size=2)
    assert apart.tolist() == pytest.approx([-0.707, 0.707, -1.414, 1.414], abs=1e-3)
    summed = advantages(SumThenNormalize(), rewards_NK, size=2)
    assert summed.tolist() == pytest.approx([-0.707, 0.707, -0.707, 0.707], abs=1e-3)


@pytest.mark.parametrize("name", ["gdpo", "mo-grpo"])
def test_constant_reward_contributes_nothing(name: str) -> None:
    rewards_NK = rewards()
    rewards_NK[:, 1] = 0.1
    one = advantages(EVERY[name], rewards_NK)
    assert torch.equal(one, advantages(EVERY[name], rewards_NK[:, :1]))


@ways
def test_reward_that_does_not_apply_is_left_out(way: Aggregation) -> None:
    rewards_NK = rewards()
    rewards_NK[:, 1] = NAN
    assert torch.equal(advantages(way, rewards_NK), advantages(way, rewards_NK[:, :1]))
    rewards_NK[5] = NAN
    found = advantages(way, rewards_NK)
    assert found[5] == 0.0
    assert found.isfinite().all()
    others = advantages(way, rewards_NK[[4, 6, 7], :1], size=3)
    if not isinstance(way, Gram) and way is not EVERY["gdpo"]:
        assert torch.allclose(found[[4, 6, 7]], others)


def test_one_reward_is_grpo_up_to_whitening() -> None:
    rewards_N1 = rewards(1)
    grpo = advantages(SumThenNormalize(), rewards_N1)
    assert torch.equal(advantages(mo_grpo(), rewards_N1), grpo)
    assert torch.equal(advantages(gdpo(), rewards_N1), whitened(grpo))


def test_weights_say_how_much_a_standardised_reward_counts() -> None:
    rewards_NK = rewards()
    weights_K = torch.tensor([2.0, -0.5])
    scores_NK = z_scores(rewards_NK, group_size=4)
    expected = 2.0 * scores_NK[:, 0] - 0.5 * scores_NK[:, 1]
    assert torch.allclose(advantages(mo_grpo(), rewards_NK, weights_K), expected)


@pytest.mark.parametrize("noon", [False, True])
def test_soft_minimum_lies_between_mean_and_least(noon: bool) -> None:
    rewards_NK = rewards(3)
    scores_NK = z_scores(rewards_NK, group_size=4).clamp(min=0.0 if noon else -torch.inf)
    mean_N = advantages(SoftMin(1e-6, noon=noon), rewards_NK)
    assert torch.allclose(mean_N, scores_NK.mean(dim=-1), atol=1e-5)
    least_N = advantages(SoftMin(1e4, noon=noon), rewards_NK)
    assert torch.allclose(least_N, scores_NK.amin(dim=-1), atol=1e-3)
    between_N = advantages(SoftMin(1.0, noon=noon), rewards_NK)
    assert (between_N <= mean_N + 1e-5).all()
    assert (between_N >= least_N - 1e-3).all()


def test_soft_minimum_near_the_mean_is_gdpo_once_whitened() -> None:
    weights_K = torch.tensor([3.0, 1.0])
    found = advantages(SoftMin(1e-6, whiten=True), rewards(), weights_K)
    assert torch.allclose(found, advantages(gdpo(), rewards(), weights_K), atol=1e-3)


def test_least_is_of_standardised_rewards_by_default() -> None:
    rewards_NK = rewards(3)
    scores_NK = z_scores(rewards_NK, group_size=4)
    found = Min()(rewards_NK, group_size=4, weights_K=torch.ones(3))
    assert torch.equal(found.advantages_N, scores_NK.clamp(min=0).amin(dim=-1))
    share = float((found.advantages_N > 0).double().mean())
    assert found.metrics["frac_nonzero"] == pytest.approx(share)
    assert found.weights_K is not None
    assert float(found.weights_K.sum()) == pytest.approx(1.0)


def test_scale_decides_where_nothing_divides() -> None:
    rewards_NK = rewards(2) * torch.tensor([0.01, 1.0])
    found = advantages(Min(noon=False, scaling="none"), rewards_NK)
    assert float(found.abs().amax()) < 0.05


@pytest.mark.parametrize("kind", [Min, Gram])
def test_columns_of_weight_zero_are_only_logged(kind: type[Min] | type[Gram]) -> None:
    rewards_NK = rewards(3)
    found = advantages(kind(), rewards_NK, torch.tensor([1.0, 0.0, 1.0]))
    assert torch.allclose(found, advantages(kind(), rewards_NK[:, [0, 2]]))
    softly = advantages(SoftMin(), rewards_NK, torch.tensor([1.0, 0.0, 1.0]))
    assert torch.allclose(softly, advantages(SoftMin(), rewards_NK[:, [0, 2]]))


def test_weights_that_the_theorem_does_not_know_are_refused_unless_asked_for() -> None:
    weights_K = torch.tensor([4.0, 1.0])
    with pytest.raises(InvalidDirection, match="PAMA has none"):
        advantages(Min(), rewards(), weights_K)
    found = advantages(Min(divide_by_weights=True), rewards(), weights_K)
    scores_NK = z_scores(rewards(), group_size=4).clamp(min=0)
    assert torch.allclose(found, (scores_NK / weights_K).amin(dim=-1))
    for way in (Min(divide_by_weights=True), Gram(), SoftMin()):
        with pytest.raises(InvalidDirection, match="negative"):
            advantages(way, rewards(), torch.tensor([1.0, -1.0]))


def test_group_with_a_constant_objective_is_not_learned_from_by_the_least() -> None:
    rewards_NK = rewards()
    rewards_NK[:4, 1] = 1.0
    found = advantages(Min(), rewards_NK)
    assert (found[:4] == 0).all()
    assert (found[4:] > 0).any()


def test_description_names_the_normalisation_and_its_epsilon() -> None:
    told = gdpo()(rewards(), group_size=4, weights_K=ONES).description
    assert told == (
        "each reward centred in groups of 4, divided by the group's std (ddof 1, epsilon 0.0001); "
        "weighted sum, whitened over the batch (ddof 1, epsilon 0.0001)"
    )
    way = NormalizeThenSum(whiten=False, scaling=("batch", "none"), epsilon=0.5)
    told = way(rewards(), group_size=4, weights_K=ONES).description
    assert "by the batch's std, by nothing (ddof 1, epsilon 0.5)" in told


@ways
def test_part_of_a_group_is_refused(way: Aggregation) -> None:
    with pytest.raises(InvalidRequest, match="whole number of groups"):
        advantages(way, torch.zeros(5, 2))


def test_sharpness_outside_its_range_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="sharpness 0"):
        SoftMin(0.0)


@pytest.mark.parametrize("how", [SumThenNormalize(), NormalizeThenSum()])
def test_a_sample_without_a_reward_is_left_out_whatever_is_logged_beside(how: Aggregation) -> None:
    rewards_NK = torch.tensor([[0.8, 1.0], [0.9, 2.0], [torch.nan, 3.0], [0.85, 4.0]])
    found = how(rewards_NK, group_size=4, weights_K=torch.tensor([1.0, 0.0]))
    alone = how(rewards_NK[:, :1], group_size=4, weights_K=torch.ones(1))
    assert found.advantages_N.tolist() == alone.advantages_N.tolist()
    assert found.advantages_N[2] == 0
