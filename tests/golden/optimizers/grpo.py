"""Multi-objective GRPO: advantages of several rewards, and the clipped loss that takes them.

Standardised rewards, in a group g of one prompt (GRPO, arXiv:2402.03300, section 4.1.2), with the
unbiased deviation and TRL's eps = 1e-4, 0 where a group is constant, rewards that do not apply left
out of mean, deviation and sum:

    Z_k = (r_k - mean_g r_k) / (std_g r_k + eps)

Advantages:

    sum_then_normalize   Z of sum_k w_k r_k, GRPO
    gdpo                 sum_k w_k Z_k, standardised over the batch (arXiv:2601.05242)
    mo_grpo              sum_k w_k Z_k (arXiv:2509.22047)
    softmin              -(1/s) log sum_k p_k exp(-s Z_k), p = w / sum w (RVPO, arXiv:2605.05750,
                         with equal p)

and those of PAMA, by the module `pama`. Gain of each token of a sample o_i, GRPO's equations 3 and
4, with ``u = pi / pi_old`` of the token:

    l_it = min(u A_i, clip(u, 1 - eps, 1 + eps) A_i) - beta D_it
    D_it = pi_ref/pi - log(pi_ref/pi) - 1

The loss is minus

    grpo      mean_i (1/|o_i|) sum_t l_it
    dr_grpo   sum_it l_it / (N * longest completion), arXiv:2503.20783
    dapo      sum_it l_it / sum_i |o_i|, arXiv:2503.14476

Each is written down twice: `as_printed`, and `corrected` with u D in place of D, which makes the
gradient of the divergence unbiased (DeepSeek-V3.2, arXiv:2512.02556) and is what TRL does unless it
is told otherwise.

Axis legend: N samples, T tokens of a completion, K objectives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.golden.optimizers import pama
from tests.golden.optimizers.bigrams import VOCABULARY, drawn_tokens, token_log_probabilities
from tests.golden.optimizers.document import Draws, Family, Floats, drawn

GROUP_SIZE = 4
EPSILON = 1e-4
LONGEST = 5
_GROUPS, _OBJECTIVES = 3, 3
_SAMPLES = GROUP_SIZE * _GROUPS


def standardised(values: Sequence[float]) -> Floats:
    """Return (r - mean) / (std + eps) of those of a group that are numbers; NaN stays."""
    found = np.array(values, dtype=float)
    there = [value for value in values if not np.isnan(value)]
    if not there or max(there) == min(there):
        return np.where(np.isnan(found), np.nan, 0.0)
    mean = sum(there) / len(there)
    deviation = (sum((value - mean) ** 2 for value in there) / (len(there) - 1)) ** 0.5
    return (found - mean) / (deviation + EPSILON)


def by_group(values_N: Floats) -> Floats:
    """Return values standardised in their groups, which lie end to end."""
    groups = [values_N[i : i + GROUP_SIZE] for i in range(0, len(values_N), GROUP_SIZE)]
    return np.concatenate([standardised(list(group)) for group in groups])


def _weighted(values_NK: Floats, weights_K: Floats) -> Floats:
    """Return sum_k w_k x_k over what applies and counts; NaN where nothing does."""
    sums = []
    for values in values_NK:
        terms = [
            w * x for w, x in zip(weights_K, values, strict=True) if w != 0 and not np.isnan(x)
        ]
        sums.append(sum(terms) if terms else np.nan)
    return np.array(sums)


def _soft_least(scores_NK: Floats, weights_K: Floats, sharpness: float) -> Floats:
    found = []
    for scores in scores_NK:
        counts = ~np.isnan(scores) & (weights_K > 0)
        shares = weights_K[counts] / weights_K[counts].sum()
        powers = shares * np.exp(-sharpness * scores[counts])
        found.append(-np.log(powers.sum()) / sharpness if counts.any() else np.nan)
    return np.array(found)


def advantages(inputs: dict[str, Any]) -> dict[str, Floats]:
    """Return the advantages of each method, 0 for samples to which no reward applies."""
    rewards_NK, weights_K = inputs["rewards"], inputs["weights"]
    scores_NK = np.stack([by_group(column) for column in rewards_NK.T], axis=1)
    decoupled_N = _weighted(scores_NK, weights_K)
    found = {
        "sum_then_normalize": by_group(_weighted(rewards_NK, weights_K)),
        "gdpo": standardised(list(decoupled_N)),
        "mo_grpo": decoupled_N,
        "softmin": _soft_least(scores_NK, weights_K, inputs["sharpness"]),
    }
    found = {name: np.nan_to_num(values) for name, values in found.items()}
    counted_NK = np.where(weights_K > 0, scores_NK, np.nan)
    return found | {name: one.advantages for name, one in pama.combined(counted_NK).items()}


def losses(advantages_N: Floats, inputs: dict[str, Any], *, corrected: bool) -> dict[str, float]:
    """Return the clipped loss with a divergence, averaged in three ways."""
    tokens, length_N = inputs["tokens"], inputs["lengths"]
    log_pi_NT, log_old_NT, log_ref_NT = (
        token_log_probabilities(inputs[name], tokens) for name in ("policy", "old", "reference")
    )
    totals_N = np.zeros(len(tokens))
    for i, length in enumerate(length_N):
        for t in range(length):
            ratio = np.exp(log_pi_NT[i, t] - log_old_NT[i, t])
            clipped = min(max(ratio, 1 - inputs["epsilon"]), 1 + inputs["epsilon"])
            gain = min(ratio * advantages_N[i], clipped * advantages_N[i])
            to_ref = log_ref_NT[i, t] - log_pi_NT[i, t]
            divergence = np.exp(to_ref) - to_ref - 1
            totals_N[i] += gain - inputs["beta"] * divergence * (ratio if corrected else 1.0)
    return {
        "grpo": -float(np.mean(totals_N / length_N)),
        "dr_grpo": -float(totals_N.sum() / (len(tokens) * LONGEST)),
        "dapo": -float(totals_N.sum() / length_N.sum()),
    }


def _rewards(draws: Draws, place: int) -> Floats:
    """Return rewards on scales of their own; the last cases have gaps and constant groups."""
    rewards_NK = drawn(draws, _SAMPLES, _OBJECTIVES) * [1.0, 5.0, 0.2] + [0.0, 2.0, -1.0]
    if place >= 6:
        rewards_NK[draws.random(rewards_NK.shape) < 0.2] = np.nan
    if place >= 8:
        rewards_NK[0] = np.nan
        rewards_NK[GROUP_SIZE : 2 * GROUP_SIZE, 1] = 0.3
    return np.round(rewards_NK, 4)


def case(draws: Draws, place: int) -> dict[str, Any]:
    """Return rewards and policies, and what each method makes of them."""
    inputs: dict[str, Any] = {
        "rewards": _rewards(draws, place),
        "weights": np.round(draws.uniform(0.2, 2.0, _OBJECTIVES), 2),
        "sharpness": round(float(draws.uniform(0.2, 4.0)), 2),
        "tokens": drawn_tokens(draws, _SAMPLES, LONGEST + 1),
        "lengths": draws.integers(1, LONGEST + 1, _SAMPLES),
        "policy": drawn(draws, VOCABULARY, VOCABULARY),
        "epsilon": 0.2,
        "beta": 0.04,
    }
    for name in ("old", "reference"):
        moved = inputs["policy"] + drawn(draws, VOCABULARY, VOCABULARY, spread=0.3)
        inputs[name] = np.round(moved, 3)
    if place == 5:
        # A column that is only logged.
        inputs["weights"][2] = 0.0
    found = advantages(inputs)
    return {
        "inputs": inputs,
        "advantages": found,
        "losses": {
            kind: {
                name: losses(values, inputs, corrected=kind == "corrected")
                for name, values in found.items()
            }
            for kind in ("as_printed", "corrected")
        },
    }


FAMILY = Family("grpo", 2402, case)
