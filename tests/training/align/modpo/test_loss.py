"""MODPO's loss, its form as a shifted reference, and what cannot carry it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from steerward.protocol.errors import InvalidRequest, UnknownObjective
from steerward.training.align.modpo.loss import (
    ALLOWED_LOSSES,
    REFUSED_LOSSES,
    Tradeoff,
    check_losses,
    modpo_logits,
    modpo_losses,
    modpo_rewards,
    shifted_reference,
    weighted_margins,
)

BETA = 0.1
N, K = 5, 2


def tradeoff(*weights: float) -> Tradeoff:
    names = ("helpfulness", "brevity", "safety")[: len(weights)]
    return Tradeoff(names, weights)


def drawn(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_shift(
    log_probs_2N: Tensor, reference_2N: Tensor, margins_2NK: Tensor, weights: Tradeoff
) -> Tensor:
    """Return logits as DPO computes them with beta' and the shifted reference."""
    shifted_2N = shifted_reference(reference_2N, margins_2NK, tradeoff=weights, beta=BETA)
    ratios_2N = log_probs_2N - shifted_2N
    return weights.beta(BETA) * (ratios_2N[0] - ratios_2N[1])


def direct(
    log_probs_2N: Tensor, reference_2N: Tensor, margins_2NK: Tensor, weights: Tradeoff
) -> Tensor:
    ratios_2N = log_probs_2N - reference_2N
    return modpo_logits(
        ratios_2N[0] - ratios_2N[1], margins_2NK[0] - margins_2NK[1], tradeoff=weights, beta=BETA
    )


def case(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    return drawn(seed, 2, N, scale=9.0), drawn(seed + 1, 2, N, scale=9.0), drawn(seed + 2, 2, N, K)


def test_loss_is_the_formula() -> None:
    log_probs_2N, reference_2N, margins_2NK = case()
    weights = tradeoff(0.5, 0.2, 0.3)
    for n in range(N):
        ratios = [float(log_probs_2N[s, n] - reference_2N[s, n]) for s in (0, 1)]
        margin = sum(
            w * float(margins_2NK[0, n, k] - margins_2NK[1, n, k])
            for k, w in enumerate(weights.others)
        )
        logit = BETA / 0.5 * (ratios[0] - ratios[1]) - margin / 0.5
        logits_N = direct(log_probs_2N, reference_2N, margins_2NK, weights)
        assert float(logits_N[n]) == pytest.approx(logit, abs=1e-5)
        sigmoid, hinge = (
            float(modpo_losses(logits_N, loss=loss)[n]) for loss in ("sigmoid", "hinge")
        )
        assert sigmoid == pytest.approx(math.log1p(math.exp(-logit)), abs=1e-5)
        assert hinge == pytest.approx(max(0.0, 1.0 - logit), abs=1e-5)


@pytest.mark.parametrize("weights", [(0.5, 0.2, 0.3), (1.0, 0.1, -0.4), (0.05, 0.9, 0.05)])
def test_shifted_reference_is_the_direct_formula(weights: tuple[float, ...]) -> None:
    log_probs_2N, reference_2N, margins_2NK = (part.double() for part in case())
    shifted, formula = (
        form(log_probs_2N, reference_2N, margins_2NK, tradeoff(*weights))
        for form in (by_shift, direct)
    )
    difference = shifted - formula
    assert float(difference.abs().max()) <= 1e-6


def test_weights_of_the_pairs_alone_are_dpo_bit_for_bit() -> None:
    log_probs_2N, reference_2N, margins_2NK = case()
    weights = tradeoff(1.0, 0.0, 0.0)
    assert weights.beta(BETA) == BETA
    shifted_2N = shifted_reference(reference_2N, margins_2NK, tradeoff=weights, beta=BETA)
    assert torch.equal(shifted_2N, reference_2N)
    ratios_2N = log_probs_2N - reference_2N
    dpo_N = BETA * (ratios_2N[0] - ratios_2N[1])
    assert torch.equal(by_shift(log_probs_2N, reference_2N, margins_2NK, weights), dpo_N)
    assert torch.equal(direct(log_probs_2N, reference_2N, margins_2NK, weights), dpo_N)


def test_equal_margins_cancel() -> None:
    log_probs_2N, reference_2N, margins_2NK = case()
    same_2NK = margins_2NK[:1].expand(2, N, K)
    weights = tradeoff(0.5, 0.2, 0.3)
    without = direct(log_probs_2N, reference_2N, torch.zeros(2, N, K), weights)
    assert torch.equal(direct(log_probs_2N, reference_2N, same_2NK, weights), without)
    shifted = by_shift(log_probs_2N, reference_2N, same_2NK, weights)
    assert torch.allclose(shifted, without, atol=1e-5)


def test_constant_of_a_prompt_changes_nothing() -> None:
    log_probs_2N, reference_2N, margins_2NK = case()
    weights = tradeoff(0.5, 0.2, 0.3)
    moved_2NK = margins_2NK + drawn(7, 1, N, K, scale=3.0)
    for form in (direct, by_shift):
        before = form(log_probs_2N, reference_2N, margins_2NK, weights)
        after = form(log_probs_2N, reference_2N, moved_2NK, weights)
        assert torch.allclose(before, after, atol=1e-4)


@given(factor=st.floats(0.01, 100.0))
def test_scaling_weights_and_beta_alike_leaves_the_loss(factor: float) -> None:
    log_probs_2N, reference_2N, margins_2NK = (part.double() for part in case())
    ratios_2N = log_probs_2N - reference_2N
    both = [
        modpo_logits(
            ratios_2N[0] - ratios_2N[1],
            margins_2NK[0] - margins_2NK[1],
            tradeoff=tradeoff(*(scale * w for w in (0.5, 0.2, 0.3))),
            beta=scale * BETA,
        )
        for scale in (1.0, factor)
    ]
    assert torch.allclose(*both, rtol=1e-9)


@given(own=st.floats(0.01, 0.99))
def test_margin_that_is_the_policys_own_reward_gives_dpo(own: float) -> None:
    """r = beta * logratio of the policy itself and weights that add up to 1."""
    log_probs_2N, reference_2N, _ = (part.double() for part in case())
    ratios_2N = log_probs_2N - reference_2N
    margins_2NK = (BETA * ratios_2N)[..., None]
    weights = tradeoff(own, 1.0 - own)
    logits_N = direct(log_probs_2N, reference_2N, margins_2NK, weights)
    assert torch.allclose(logits_N, BETA * (ratios_2N[0] - ratios_2N[1]), atol=1e-9)


def test_no_other_objectives_is_dpo() -> None:
    log_probs_2N, reference_2N, _ = case()
    logits_N = direct(log_probs_2N, reference_2N, torch.zeros(2, N, 0), tradeoff(1.0))
    ratios_2N = log_probs_2N - reference_2N
    assert torch.equal(logits_N, BETA * (ratios_2N[0] - ratios_2N[1]))


def test_rewards_are_those_of_the_papers_code() -> None:
    log_probs_2N, reference_2N, margins_2NK = case()
    weights = tradeoff(0.5, 0.2, 0.3)
    rewards_2N = modpo_rewards(
        log_probs_2N - reference_2N, margins_2NK, tradeoff=weights, beta=BETA
    )
    logits_N = direct(log_probs_2N, reference_2N, margins_2NK, weights)
    assert torch.allclose(rewards_2N[0] - rewards_2N[1], logits_N, atol=1e-5)
    losses_N = -functional.logsigmoid(rewards_2N[0] - rewards_2N[1])
    assert torch.allclose(losses_N, modpo_losses(logits_N), atol=1e-5)


def test_shifted_reference_is_wide_whatever_the_reference_is() -> None:
    reference_N = torch.tensor([-300.0], dtype=torch.bfloat16)
    shifted_N = shifted_reference(
        reference_N, torch.tensor([[0.01]]), tradeoff=tradeoff(0.5, 0.5), beta=BETA
    )
    assert shifted_N.dtype == torch.float32
    assert float(shifted_N) == pytest.approx(-299.95 - 0.05 + 0.05, abs=1e-1)
    assert float(shifted_N) > -300.0


@pytest.mark.parametrize("own", [0.0, -0.1, math.nan, math.inf])
def test_weight_of_the_pairs_must_be_above_zero(own: float) -> None:
    with pytest.raises(InvalidRequest, match="weight of 'helpfulness'|the pairs' objective"):
        tradeoff(own, 1.0)


def test_refusal_of_weight_zero_names_the_way_out() -> None:
    with pytest.raises(InvalidRequest, match="optimises the margins' objectives alone"):
        Tradeoff.of({"helpfulness": 0.0, "brevity": 1.0}, pairs="helpfulness")


def test_weights_and_names_must_agree() -> None:
    with pytest.raises(InvalidRequest, match="2 weights for 1 objectives"):
        Tradeoff(("helpfulness",), (0.5, 0.5))
    with pytest.raises(InvalidRequest, match="two weights"):
        Tradeoff(("helpfulness", "helpfulness"), (0.5, 0.5))
    with pytest.raises(UnknownObjective, match="no weight"):
        Tradeoff.of({"brevity": 1.0}, pairs="helpfulness")
    with pytest.raises(InvalidRequest, match="3 margins a response"):
        weighted_margins(torch.zeros(1, 3), tradeoff(0.5, 0.5))


def test_objective_of_the_pairs_comes_first() -> None:
    found = Tradeoff.of({"brevity": 0.2, "helpfulness": 0.5, "safety": 0.3}, pairs="helpfulness")
    assert found.names == ("helpfulness", "brevity", "safety")
    assert (found.own, found.others) == (0.5, (0.2, 0.3))
    assert found.margin_names == ("brevity", "safety")


@pytest.mark.parametrize("loss", ALLOWED_LOSSES)
def test_loss_of_a_difference_is_allowed(loss: str) -> None:
    check_losses([loss])
    check_losses([loss, "sft"])


@pytest.mark.parametrize("loss", [*REFUSED_LOSSES, "unheard_of"])
def test_other_losses_are_refused_with_the_reason(loss: str) -> None:
    reason = REFUSED_LOSSES.get(loss, "is not one whose use of the reference is known")
    with pytest.raises(InvalidRequest, match=reason):
        check_losses(["sigmoid", loss])


@pytest.mark.parametrize("losses", [["sft"], []])
def test_losses_without_a_reference_are_refused(losses: list[str]) -> None:
    with pytest.raises(InvalidRequest, match="margins would do nothing"):
        check_losses(losses)


@pytest.mark.parametrize("divergence", ["forward_kl", "js_divergence", "alpha_divergence"])
def test_other_divergences_are_refused(divergence: str) -> None:
    with pytest.raises(InvalidRequest, match="bends each log-ratio"):
        check_losses(["sigmoid"], divergence=divergence)
