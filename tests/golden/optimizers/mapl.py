"""MAPL (arXiv:2505.12845): preferences between responses, between prompts, between preferences.

Bradley-Terry each time, ``-log[ e^winner / (e^winner + e^loser) ]``, of rewards r: those of a
reward model, or of a policy ``beta log[pi/pi_ref]`` (arXiv:2305.18290, whose beta log Z is left out
in intra rows as response-conditioned DPO, arXiv:2502.00814, does).

    preference   winner r(x, y_w)                 loser r(x, y_l)
    intra        winner r(x_w, y)                 loser r(x_l, y)
    inter        winner r(x', y_w) + r(x, y_l)    loser r(x', y_l) + r(x, y_w), where x' adds what
                 y_w meets and y_l violates; where it is the other way round they change places

The inter loss is not published in what could be read; this form is the probability that y_w goes
with x' and y_l with x rather than the other way round, as IOPO (arXiv:2411.06208) pairs corners.

    L = mean preference + lambda_intra mean intra + lambda_inter mean inter

Axis legend: N rows, S sides of a row: winner and loser, of inter rows (x', y_w), (x', y_l),
(x, y_w), (x, y_l).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.golden.optimizers.document import Draws, Family, Floats, drawn, preferred

_SIDES = {"preference": 2, "intra": 2, "inter": 4}


def losses(rewards: dict[str, Floats], inputs: dict[str, Any]) -> dict[str, float]:
    """Return the mean loss of each part, and the total."""
    with_w, with_l, without_w, without_l = rewards["inter"].T
    meets, violates = with_w + without_l, with_l + without_w
    favours_winner = np.array(inputs["directions"]) == 1
    inter_N = preferred(
        np.where(favours_winner, meets, violates), np.where(favours_winner, violates, meets)
    )
    found = {
        "preference": float(preferred(*rewards["preference"].T).mean()),
        "intra": float(preferred(*rewards["intra"].T).mean()),
        "inter": float(inter_N.mean()),
    }
    total = found["preference"]
    total += inputs["lambda_intra"] * found["intra"] + inputs["lambda_inter"] * found["inter"]
    return {**found, "total": total}


def case(draws: Draws, place: int) -> dict[str, Any]:
    """Return rewards and log-probabilities of rows of all parts, and their losses."""
    counts = {name: int(draws.integers(1, 7)) for name in _SIDES}
    shapes = {name: (counts[name], sides) for name, sides in _SIDES.items()}
    reference = {
        name: drawn(draws, *shape, mean=-30.0, spread=5.0) for name, shape in shapes.items()
    }
    policy = {
        name: np.round(values + drawn(draws, *values.shape, spread=4.0), 3)
        for name, values in reference.items()
    }
    inputs: dict[str, Any] = {
        "rewards": {name: drawn(draws, *shape, spread=2.0) for name, shape in shapes.items()},
        "policy": policy,
        "reference": reference,
        "directions": draws.choice([1, -1], counts["inter"]),
        "beta": round(float(draws.uniform(0.05, 0.5)), 2),
        "lambda_intra": 0.0 if place == 9 else round(float(draws.uniform(0.1, 2.0)), 2),
        "lambda_inter": round(float(draws.uniform(0.1, 2.0)), 2),
    }
    implicit = {name: inputs["beta"] * (policy[name] - reference[name]) for name in _SIDES}
    return {
        "inputs": inputs,
        "losses": {
            "reward_model": losses(inputs["rewards"], inputs),
            "policy": losses(implicit, inputs),
        },
    }


FAMILY = Family("mapl", 2505, case)
