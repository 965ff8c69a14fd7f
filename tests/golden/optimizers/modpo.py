"""MODPO (arXiv:2310.03708): preferences of one objective k, rewards of the others as margins.

Derived as the paper does. The optimal policy for the rewards ``w . r`` fulfils

    w . r(x, y) = beta log[pi/pi_ref](y|x) + const(x)

so that the policy's own estimate of the pairs' reward is, up to a constant of the prompt,

    r_k(x, y) = ( beta log[pi/pi_ref](y|x) - w_-k . r_-k(x, y) ) / w_k

and pairs are fitted by Bradley-Terry, ``-log[ e^{r_k(y_w)} / (e^{r_k(y_w)} + e^{r_k(y_l)}) ]``. The
authors' code has beside it the hinge, ``max(0, 1 - (r_k(y_w) - r_k(y_l)))``.

Axis legend: N pairs, K objectives beside that of the pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.golden.optimizers.document import Draws, Family, Floats, drawn, preferred

_PAIRS = 6


def estimated_rewards(inputs: dict[str, Any], side: str) -> Floats:
    """Return r_k of one side's responses, without the constant of the prompt."""
    own, *others = inputs["weights"]
    logratios_N = inputs["policy"][side] - inputs["reference"][side]
    margins_N = sum(
        weight * column for weight, column in zip(others, inputs["margins"][side].T, strict=True)
    )
    return (inputs["beta"] * logratios_N - margins_N) / own


def case(draws: Draws, place: int) -> dict[str, Any]:
    """Return log-probabilities, margins and weights, and the losses of the pairs."""
    num_others = 1 + place % 3
    weights = np.round(draws.uniform(0.1, 1.0, 1 + num_others), 2)
    if place == 8:
        # The weights of the others may be anything: a penalty, or nothing.
        weights[1:] *= -1.0
    if place == 9:
        weights[1:] = 0.0
    inputs: dict[str, Any] = {
        "beta": round(float(draws.uniform(0.05, 0.5)), 2),
        "weights": weights,
        "policy": {}, "reference": {}, "margins": {},
    }  # fmt: skip
    for side in ("chosen", "rejected"):
        inputs["reference"][side] = drawn(draws, _PAIRS, mean=-40.0, spread=10.0)
        moved_N = inputs["reference"][side] + drawn(draws, _PAIRS, spread=5.0)
        inputs["policy"][side] = np.round(moved_N, 3)
        inputs["margins"][side] = drawn(draws, _PAIRS, num_others, spread=2.0)
    chosen_N, rejected_N = (estimated_rewards(inputs, side) for side in ("chosen", "rejected"))
    hinge_N = np.maximum(0.0, 1.0 - (chosen_N - rejected_N))
    return {
        "inputs": inputs,
        "rewards": {"chosen": chosen_N, "rejected": rejected_N},
        "logits": chosen_N - rejected_N,
        "losses": {"sigmoid": preferred(chosen_N, rejected_N).mean(), "hinge": hinge_N.mean()},
    }


FAMILY = Family("modpo", 2310, case)
