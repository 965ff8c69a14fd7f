"""Stage 1 recovers planted heads, with missing labels, and says how well it did."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sklearn.linear_model import Ridge

from steerward.protocol.errors import DatasetRefused
from steerward.training.ridge import PairRows, fit_head

ALPHAS = (1e-4, 1e-2, 1.0, 100.0)


def planted(*, noise: float, count: int = 800, width: int = 24) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(count, width, generator=generator)
    weight = torch.randn(width, generator=generator)
    labels = vectors @ weight + 0.7 + noise * torch.randn(count, generator=generator)
    held_out = torch.rand(count, generator=generator) < 0.2
    return vectors, weight, labels, held_out


def test_planted_head_is_recovered_though_labels_are_missing() -> None:
    vectors, weight, labels, held_out = planted(noise=0.05)
    labels[torch.arange(len(labels)) % 3 == 0] = float("nan")
    fit = fit_head(
        vectors,
        labels,
        held_out_N=held_out,
        weights_N=torch.ones(len(labels)),
        alphas=ALPHAS,
        name="planted",
    )
    torch.testing.assert_close(fit.weight_H.float(), weight, atol=0.02, rtol=0)
    assert fit.bias == pytest.approx(0.7, abs=0.02)
    assert fit.report["spearman"] > 0.99
    assert fit.report["rows"] == int((~torch.isnan(labels)).sum())


@pytest.mark.parametrize("alpha", ALPHAS)
def test_solution_is_that_of_scikit_learn(alpha: float) -> None:
    vectors, _, labels, held_out = planted(noise=2.0, count=120)
    weights = torch.rand(len(labels)) + 0.1
    fit = fit_head(
        vectors, labels, held_out_N=held_out, weights_N=weights, alphas=(alpha,), name="planted"
    )
    # Ours brings row weights to mean 1 first, so that alpha means the same for any weighting.
    order = torch.cat([torch.nonzero(~held_out).flatten(), torch.nonzero(held_out).flatten()])
    reference = Ridge(alpha=alpha).fit(
        vectors[order].double().numpy(),
        labels[order].double().numpy(),
        sample_weight=(weights[order].double() / weights.double().mean()).numpy(),
    )
    assert fit.weight_H.tolist() == pytest.approx(reference.coef_.tolist(), abs=1e-6)
    assert fit.bias == pytest.approx(float(reference.intercept_), abs=1e-6)


def test_alpha_is_the_one_that_predicts_held_out_rows_best() -> None:
    vectors, _, labels, held_out = planted(noise=20.0, count=60)
    arguments = {"held_out_N": held_out, "weights_N": torch.ones(60), "name": "noisy"}
    chosen = fit_head(vectors, labels, alphas=ALPHAS, **arguments)  # pyright: ignore[reportArgumentType]
    errors = {
        alpha: fit_head(vectors, labels, alphas=(alpha,), **arguments).report["mse"]  # pyright: ignore[reportArgumentType]
        for alpha in ALPHAS
    }
    assert chosen.report["alpha"] == min(errors, key=lambda alpha: errors[alpha])
    assert chosen.report["alpha"] == 100.0


def test_pairs_teach_what_ratings_leave_open() -> None:
    """Ratings vary in one direction only; pairs about the same objective show another."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.zeros(200, 4)
    vectors[:, 0] = torch.randn(200, generator=generator)
    labels = vectors[:, 0] * 0.5
    differences = torch.zeros(100, 4)
    differences[:, 1] = 1.0 + torch.rand(100, generator=generator)
    held_out = torch.arange(200) % 5 == 0
    arguments: dict[str, Any] = {
        "held_out_N": held_out, "weights_N": torch.ones(200), "alphas": (1e-3,), "name": "x",
    }  # fmt: skip
    without = fit_head(vectors, labels, **arguments)
    rows = PairRows(differences, torch.arange(100) % 5 == 0, weight=1.0, margin=1.0)
    taught = fit_head(vectors, labels, **arguments, pairs=rows)
    assert without.weight_H[1].item() == pytest.approx(0.0, abs=1e-6)
    assert taught.weight_H[0].item() == pytest.approx(0.5, abs=1e-3)
    # The margin is one standard deviation of the labels over a mean difference of about 1.5.
    assert taught.weight_H[1].item() == pytest.approx(float(labels.std()) / 1.5, rel=0.1)
    assert taught.report["pairs"] == 100
    assert taught.report["held_out_pair_accuracy"] == 1.0
    none = PairRows(differences[:0], torch.zeros(0, dtype=torch.bool), weight=1.0, margin=1.0)
    assert torch.equal(
        fit_head(vectors, labels, **arguments, pairs=none).weight_H, without.weight_H
    )


def test_a_few_pairs_do_not_outweigh_many_ratings() -> None:
    rows = PairRows(torch.ones(10, 4), torch.zeros(10, dtype=torch.bool), weight=1.0, margin=1.0)
    assert rows.row_weight(num_ratings=20) == 2.0
    assert rows.row_weight(num_ratings=10_000) == 3.0


def test_pairs_that_say_nothing_choose_a_stronger_penalty() -> None:
    """Held-out pairs are part of what alpha is judged by: noise there shows as noise."""
    generator = torch.Generator().manual_seed(0)
    # Ratings leave half of the channels open; the pairs live there.
    vectors = torch.randn(400, 80, generator=generator)
    vectors[:, 40:] = 0
    labels = vectors[:, 0] + 0.1 * torch.randn(400, generator=generator)
    noise = torch.randn(120, 80, generator=generator)
    noise[:, :40] = 0
    arguments: dict[str, Any] = {
        "held_out_N": torch.arange(400) % 5 == 0, "weights_N": torch.ones(400), "name": "x",
        "alphas": (1e-3, 1.0, 30.0),
    }  # fmt: skip
    rows = PairRows(noise, torch.arange(120) % 2 == 0, weight=1.0, margin=1.0)
    without = fit_head(vectors, labels, **arguments)
    with_noise = fit_head(vectors, labels, **arguments, pairs=rows)
    assert with_noise.report["alpha"] > without.report["alpha"]
    assert abs(with_noise.report["held_out_pair_accuracy"] - 0.5) < 0.2


def test_selection_head_has_not_seen_what_was_held_out() -> None:
    vectors, _, labels, held_out = planted(noise=1.0)
    changed = torch.where(held_out, labels + 5.0, labels)
    arguments: dict[str, Any] = {
        "held_out_N": held_out, "weights_N": torch.ones(len(labels)), "alphas": (1.0,), "name": "x",
    }  # fmt: skip
    fit, other = (fit_head(vectors, values, **arguments) for values in (labels, changed))
    assert torch.equal(fit.selection_weight_H, other.selection_weight_H)
    assert fit.selection_bias == other.selection_bias
    assert not torch.allclose(fit.weight_H, other.weight_H)


def test_objective_without_labels_is_refused_by_name() -> None:
    vectors, _, labels, held_out = planted(noise=1.0)
    with pytest.raises(DatasetRefused, match="'empty' has labels on 0 training and 0 held-out"):
        fit_head(
            vectors,
            torch.full_like(labels, float("nan")),
            held_out_N=held_out,
            weights_N=torch.ones(len(labels)),
            alphas=ALPHAS,
            name="empty",
        )
