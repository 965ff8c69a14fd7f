"""Rejection-sampling fine-tuning, DPA (arXiv:2402.18571): who is learned from, and the loss.

Selection, of the responses to a prompt drawn under a direction v (section 3):

    y* = argmax_y v . r(x, y)

on one of three scales: r as it is, ``(r - mean) / std`` of a reference set, or of the prompt's own
responses (population deviation). Beside the score, by how much it is above the responses' mean.

Fine-tuning on it, per token of the response and averaged over all of them, with p_0 the policy that
the job began with:

    L = mean( -log p(token) + kl_coef * KL(p || p_0) ),    KL = sum_v p(v) log[p(v) / p_0(v)]

Axis legend: N responses or sequences, T tokens after the first, M objectives, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.golden.optimizers.bigrams import (
    VOCABULARY,
    drawn_tokens,
    log_probabilities,
    token_log_probabilities,
)
from tests.golden.optimizers.document import Draws, Family, Floats, drawn

OBJECTIVES = ("helpfulness", "verbosity", "safety")
_RESPONSES, _SEQUENCES, _LENGTH = 8, 3, 7


def selected(rewards_NM: Floats, direction_M: Floats) -> dict[str, Any]:
    """Return the best response, its score, and how far that is above the mean."""
    scores = [sum(v * r for v, r in zip(direction_M, row, strict=True)) for row in rewards_NM]
    best = max(range(len(scores)), key=lambda n: scores[n])
    advantage = scores[best] - sum(scores) / len(scores)
    return {"best": best, "score": scores[best], "advantage": advantage}


def _selection(draws: Draws) -> dict[str, Any]:
    rewards_NM = drawn(draws, _RESPONSES, len(OBJECTIVES)) * [1.0, 20.0, 0.1]
    direction_M = draws.normal(size=len(OBJECTIVES))
    inputs = {
        "rewards": np.round(rewards_NM, 4),
        "direction": direction_M / np.linalg.norm(direction_M),
        "reference_mean": drawn(draws, len(OBJECTIVES)),
        "reference_std": np.array([1.1, 18.0, 0.12]),
    }
    rewards_NM, direction_M = inputs["rewards"], inputs["direction"]
    by_reference_NM = (rewards_NM - inputs["reference_mean"]) / inputs["reference_std"]
    away_NM = rewards_NM - rewards_NM.mean(axis=0)
    by_prompt_NM = away_NM / np.sqrt((away_NM**2).mean(axis=0))
    scales = {"raw": rewards_NM, "reference": by_reference_NM, "prompt": by_prompt_NM}
    found = {name: selected(values_NM, direction_M) for name, values_NM in scales.items()}
    return {"inputs": inputs, "selected": found}


def _fine_tuning(draws: Draws, place: int) -> dict[str, Any]:
    tokens = drawn_tokens(draws, _SEQUENCES, _LENGTH)
    policy_VV = drawn(draws, VOCABULARY, VOCABULARY)
    base_VV = np.round(policy_VV + drawn(draws, VOCABULARY, VOCABULARY, spread=0.5), 3)
    # Where the response begins, and where the sequence ends.
    starts, ends = draws.integers(1, 4, _SEQUENCES), draws.integers(4, _LENGTH + 1, _SEQUENCES)
    kl_coef = 0.0 if place == 0 else round(float(draws.uniform(0.05, 1.0)), 2)
    log_p_NT = token_log_probabilities(policy_VV, tokens)
    log_p_VV, log_p0_VV = log_probabilities(policy_VV), log_probabilities(base_VV)
    divergences_V = (np.exp(log_p_VV) * (log_p_VV - log_p0_VV)).sum(axis=1)
    entropies, divergences = [], []
    for n in range(_SEQUENCES):
        for t in range(starts[n], ends[n]):
            entropies.append(-log_p_NT[n, t - 1])
            divergences.append(divergences_V[tokens[n, t - 1]])
    cross_entropy, divergence = float(np.mean(entropies)), float(np.mean(divergences))
    return {
        "inputs": {
            "tokens": tokens, "starts": starts, "ends": ends,
            "policy": policy_VV, "base": base_VV, "kl_coef": kl_coef,
        },
        "cross_entropy": cross_entropy,
        "divergences": divergences,
        "loss": cross_entropy + kl_coef * divergence,
    }  # fmt: skip


def case(draws: Draws, place: int) -> dict[str, Any]:
    """Return a prompt's responses and who is selected, and sequences and their loss."""
    return {"selection": _selection(draws), "fine_tuning": _fine_tuning(draws, place)}


FAMILY = Family("rsf", 24021, case)
