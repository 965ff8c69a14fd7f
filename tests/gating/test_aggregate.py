"""The score and its two forms: transform on the rewards, or on the gates."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steerward.gating.aggregate import preference_scores
from steerward.gating.steering import direction_scores, weighted_coefficients


@settings(deadline=None)
@given(seed=st.integers(0, 999), rows=st.integers(1, 8), k=st.integers(1, 23))
def test_score_equals_both_forms(seed: int, rows: int, k: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rewards_NK = torch.randn(rows, k, generator=generator)
    gates_NK = torch.rand(rows, k, generator=generator)
    transform_KK = torch.randn(k, k, generator=generator)
    scores_N, coefficients_NK = preference_scores(rewards_NK, gates_NK, transform_KK=transform_KK)
    on_rewards = (gates_NK * (rewards_NK @ transform_KK)).sum(dim=-1)
    on_gates = (coefficients_NK * rewards_NK).sum(dim=-1)
    torch.testing.assert_close(scores_N, on_rewards, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scores_N, on_gates, atol=1e-4, rtol=1e-4)


def test_candidates_use_the_gates_of_their_prompt() -> None:
    rewards_NK = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]])
    gates_PK = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    scores_N, _ = preference_scores(
        rewards_NK, gates_PK, transform_KK=torch.eye(2), prompt_index_N=torch.tensor([1, 0, 1])
    )
    assert scores_N.tolist() == [2.0, 1.0, 2.0]


def test_mismatched_objectives_are_refused() -> None:
    with pytest.raises(ValueError, match="3"):
        preference_scores(torch.ones(1, 2), torch.ones(1, 3), transform_KK=torch.eye(2))


def test_directions_standardise_by_the_reference() -> None:
    rewards_NK = torch.tensor([[1.0, 5.0]])
    directions_VK = torch.tensor([[1.0, 0.0], [0.6, -0.8]])
    raw = direction_scores(rewards_NK, directions_VK)
    assert raw[0].tolist() == pytest.approx([1.0, 0.6 - 4.0])
    moments = {
        "reference_mean_K": torch.tensor([0.0, 3.0]),
        "reference_std_K": torch.tensor([2.0, 4.0]),
    }
    standardised = direction_scores(rewards_NK, directions_VK, **moments)
    assert standardised[0].tolist() == pytest.approx([0.5, 0.6 * 0.5 - 0.8 * 0.5])


def test_weights_take_the_place_of_the_gates_under_the_same_transform() -> None:
    transform_KK = torch.tensor([[1.0, 0.0], [-0.5, 0.0]])
    weights_K = torch.tensor([0.25, 0.75])
    rewards_NK = torch.tensor([[2.0, 1.0]])
    expected, _ = preference_scores(rewards_NK, weights_K[None], transform_KK=transform_KK)
    actual = rewards_NK @ weighted_coefficients(weights_K, transform_KK)
    torch.testing.assert_close(actual, expected)
