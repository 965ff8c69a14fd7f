"""Theorem 1 of PAMA, weights that realise it, and the shortest convex combination."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch
from scipy.optimize import minimize

from steerward.protocol.errors import InvalidRequest
from steerward.training.align.grpo.pareto import (
    Rule,
    min_norm_weights,
    nearest_to_zero,
    two_objective_weights,
    two_vector_weights,
    weights_nearest_to_zero,
)

RULES: tuple[Rule, ...] = ("two_point", "least_norm")


def random_rows(num_objectives: int, *, seed: int = 0, rows: int = 500) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, num_objectives, generator=generator, dtype=torch.float64)
    shift = torch.randint(-1, 2, (rows, 1), generator=generator) * 2.0
    values = values + shift
    # Rows with zeros and with ties, too.
    values[: rows // 10, 0] = 0.0
    values[rows // 10 : rows // 5, -1] = values[rows // 10 : rows // 5, 0]
    return values


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("num_objectives", [1, 2, 3, 5, 12])
def test_weights_lie_on_the_simplex_and_realise_the_value(rule: Rule, num_objectives: int) -> None:
    values_NK = random_rows(num_objectives)
    weights_NK = weights_nearest_to_zero(values_NK, rule=rule)
    assert (weights_NK >= 0).all()
    assert weights_NK.sum(dim=-1) == pytest.approx(1.0, abs=1e-12)
    realised_N = (weights_NK * values_NK).sum(dim=-1)
    assert realised_N.numpy() == pytest.approx(nearest_to_zero(values_NK).numpy(), abs=1e-12)


def test_value_is_the_least_the_greatest_or_zero() -> None:
    rows = torch.tensor([[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0], [-1.0, 2.0, 3.0], [0.0, 2.0, 3.0]])
    assert nearest_to_zero(rows).tolist() == [1.0, -1.0, 0.0, 0.0]
    part = torch.tensor([[float("nan"), 2.0], [float("nan")] * 2])
    assert nearest_to_zero(part)[0] == 2.0
    assert nearest_to_zero(part)[1].isnan()


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
@pytest.mark.parametrize("rule", RULES)
def test_equal_advantages_share_weight_evenly(rule: Rule, value: float) -> None:
    weights_NK = weights_nearest_to_zero(torch.full((1, 5), value), rule=rule)
    assert weights_NK.tolist()[0] == pytest.approx([0.2] * 5)


@pytest.mark.parametrize("rule", RULES)
def test_weights_move_with_the_objectives(rule: Rule) -> None:
    values_NK = random_rows(6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    moved_NK = weights_nearest_to_zero(values_NK[:, order], rule=rule)
    expected_NK = weights_nearest_to_zero(values_NK, rule=rule)[:, order]
    assert moved_NK.numpy() == pytest.approx(expected_NK.numpy(), abs=1e-12)


def test_two_objectives_agree_with_the_closed_form_and_a_grid() -> None:
    values_N2 = random_rows(2)
    closed_N2 = two_objective_weights(values_N2)
    for rule in RULES:
        found = weights_nearest_to_zero(values_N2, rule=rule)
        assert found.numpy() == pytest.approx(closed_N2.numpy(), abs=1e-12)
    grid_G = torch.linspace(0, 1, 10_001, dtype=torch.float64)
    sums_NG = values_N2[:, :1] * grid_G + values_N2[:, 1:] * (1 - grid_G)
    best_N = sums_NG.abs().amin(dim=-1)
    realised_N = (closed_N2 * values_N2).sum(dim=-1).abs()
    assert (realised_N <= best_N + 1e-12).all()
    assert (best_N - realised_N).amax() < 1e-3


def most_even(values: torch.Tensor) -> torch.Tensor:
    """The least-norm weights with product 0, by trying every support."""
    best, chosen = float("inf"), torch.zeros_like(values)
    for size in range(2, len(values) + 1):
        for support in combinations(range(len(values)), size):
            part = values[list(support)]
            rows = torch.stack([torch.ones_like(part), part])
            solved = torch.linalg.pinv(rows) @ torch.tensor([1.0, 0.0], dtype=torch.float64)
            is_exact = abs(float(part @ solved)) < 1e-9 and abs(float(solved.sum()) - 1) < 1e-9
            norm = float(solved.square().sum())
            if is_exact and float(solved.min()) > -1e-12 and norm < best - 1e-12:
                best, chosen = norm, torch.zeros_like(values)
                chosen[list(support)] = solved
    return chosen


@pytest.mark.parametrize("num_objectives", [3, 4, 6])
def test_least_norm_is_the_most_even_choice(num_objectives: int) -> None:
    values_NK = random_rows(num_objectives, seed=num_objectives, rows=60)
    # One side much heavier: supports that are not whole.
    values_NK[:20] *= torch.logspace(-2, 2, num_objectives, dtype=torch.float64)
    is_mixed_N = (values_NK.amin(-1) < 0) & (values_NK.amax(-1) > 0)
    for values_K in values_NK[is_mixed_N]:
        found = weights_nearest_to_zero(values_K[None])[0]
        assert found.numpy() == pytest.approx(most_even(values_K).numpy(), abs=1e-8)


def test_numbers_of_any_size_have_weights() -> None:
    values_NK = torch.tensor([[-1e-30, 1e-30, 3e-30], [-1e30, 1e30, 3e30], [-1e-30, 1.0, 1e30]])
    for rule in RULES:
        weights_NK = weights_nearest_to_zero(values_NK.double(), rule=rule)
        assert weights_NK.sum(dim=-1) == pytest.approx(1.0)
        assert weights_NK.isfinite().all()
    with pytest.raises(InvalidRequest, match="NaN or infinite"):
        weights_nearest_to_zero(torch.tensor([[1.0, float("nan")]]))


def gram_of(vectors_KN: torch.Tensor) -> torch.Tensor:
    return vectors_KN.double() @ vectors_KN.double().T


def test_two_vectors_agree_with_brute_force() -> None:
    generator = torch.Generator().manual_seed(1)
    grid = torch.linspace(0, 1, 2001, dtype=torch.float64)
    for _ in range(50):
        vectors = torch.randn(2, 4, generator=generator, dtype=torch.float64) + 0.5
        gram = gram_of(vectors)
        weights = two_vector_weights(gram)
        best = min(float((c * vectors[0] + (1 - c) * vectors[1]).norm()) for c in grid)
        found = float((weights @ gram @ weights).clamp(min=0).sqrt())
        assert found <= best + 1e-9
        assert best - found < 1e-3


@pytest.mark.parametrize("num_objectives", [3, 7])
def test_shortest_combination_agrees_with_a_general_solver(num_objectives: int) -> None:
    generator = torch.Generator().manual_seed(2)
    for _ in range(10):
        vectors = torch.randn(num_objectives, 9, generator=generator, dtype=torch.float64) + 0.3
        gram = gram_of(vectors)
        weights = min_norm_weights(gram)
        assert (weights >= 0).all()
        assert float(weights.sum()) == pytest.approx(1.0)
        product: Any = gram.numpy()
        solved = minimize(
            lambda c, g=product: c @ g @ c,
            [1 / num_objectives] * num_objectives,
            jac=lambda c, g=product: 2 * g @ c,
            bounds=[(0, 1)] * num_objectives,
            constraints={"type": "eq", "fun": lambda c: c.sum() - 1},
            options={"ftol": 1e-14},
        )
        assert float(weights @ gram @ weights) <= solved.fun + 1e-7
        # No objective gets worse along it.
        combined = weights @ vectors
        assert (vectors @ combined >= combined @ combined - 1e-6).all()


def test_orthogonal_vectors_have_weights_by_inverse_squared_length() -> None:
    lengths = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    weights = min_norm_weights(torch.diag(lengths.square()))
    expected = lengths.pow(-2) / lengths.pow(-2).sum()
    assert weights.numpy() == pytest.approx(expected.numpy(), abs=1e-6)


def test_equal_vectors_share_their_weight() -> None:
    one, other = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 1.0])
    weights = min_norm_weights(gram_of(torch.stack([one, other, other])))
    assert weights.numpy() == pytest.approx([0.2, 0.4, 0.4], abs=1e-6)
    assert min_norm_weights(torch.zeros(3, 3)).tolist() == pytest.approx([1 / 3] * 3)
    with pytest.raises(InvalidRequest, match="NaN or infinite"):
        min_norm_weights(torch.full((3, 3), float("nan")))
