"""The transform frees rewards of verbosity, or says that it cannot."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from steerward.gating.transform import PENALTY_GRID, fit_transform, rank_correlation


@given(
    st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=40).filter(
        lambda rows: len({a for a, _ in rows}) > 1 and len({b for _, b in rows}) > 1
    )
)
def test_rank_correlation_is_spearmans_with_ties(rows: list[tuple[int, int]]) -> None:
    a, b = (torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True))
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-9)


def test_rank_correlation_of_a_constant_is_zero() -> None:
    assert rank_correlation(torch.ones(5), torch.arange(5.0)) == 0.0


def planted(penalty: float, *, count: int = 4000) -> torch.Tensor:
    """Rewards (independent of length, length-laden, length itself)."""
    generator = np.random.default_rng(0)
    verbosity = generator.normal(size=count)
    clean = generator.normal(size=count)
    laden = generator.normal(size=count) * 0.5 + penalty * verbosity
    return torch.tensor(np.stack([clean, laden, verbosity], axis=1), dtype=torch.float32)


def test_planted_penalty_is_found_and_correlation_removed() -> None:
    names = ("clean", "laden", "verbosity")
    rewards_NK = planted(0.4)
    fit = fit_transform(rewards_NK, names=names, verbosity="verbosity", threshold=0.03)
    assert fit.penalties["clean"] <= 0.05
    assert 0.35 <= fit.penalties["laden"] <= 0.45
    assert fit.correlation_before["laden"] > 0.5
    transformed = rewards_NK @ fit.transform_KK
    for k in (0, 1):
        assert rank_correlation(transformed[:, k], rewards_NK[:, 2]) <= 0.03
    # Verbosity's own column is zero: what is left of it counts for nothing.
    assert not transformed[:, 2].any()
    assert fit.transform_KK[:, 2].tolist() == [0.0, 0.0, 0.0]
    # Column k maps raw rewards to r_k - lambda_k * r_verbosity.
    expected = rewards_NK[:, 1] - fit.penalties["laden"] * rewards_NK[:, 2]
    torch.testing.assert_close(transformed[:, 1], expected)


def test_standardised_rewards_have_spread_one_and_stay_free_of_verbosity() -> None:
    rewards_NK = planted(0.4) * torch.tensor([3.0, 0.2, 1.0])
    names = ("clean", "laden", "verbosity")
    fit = fit_transform(rewards_NK, names=names, verbosity="verbosity", standardise=True)
    transformed = rewards_NK @ fit.transform_KK
    spread = transformed.std(dim=0, correction=0)
    torch.testing.assert_close(spread[:2], torch.ones(2))
    assert not transformed[:, 2].any()
    for k in (0, 1):
        assert rank_correlation(transformed[:, k], rewards_NK[:, 2]) <= 0.03


def test_objective_that_shrinks_with_length_is_left_alone() -> None:
    fit = fit_transform(planted(-0.5), names=("a", "b", "v"), verbosity="v")
    assert fit.penalties["b"] == 0.0
    assert fit.correlation_after["b"] < -0.5


def test_no_convergence_names_the_objective_and_its_best_correlation() -> None:
    """The public script keeps penalty 1 without a word when nothing on the grid is enough."""
    with pytest.raises(ValueError, match=r"'laden' cannot be freed .* is 0\.\d+, threshold 0\.03"):
        fit_transform(
            planted(0.4), names=("clean", "laden", "v"), verbosity="v", grid=(0.0, 0.1, 0.2)
        )


def test_grid_ascends() -> None:
    assert list(PENALTY_GRID) == sorted(set(PENALTY_GRID))
    assert PENALTY_GRID[0] == 0.0
