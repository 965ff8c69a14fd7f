"""CGPO, "The Perfect Blend" (arXiv:2409.20370): three losses, and the sum over tasks.

Calibrated and constrained rewards of a sample a, with a_bar the baseline response of its prompt:

    R_calib = e^r(a) / (e^r(a) + e^r(a_bar))         R_cr = R_calib if every judge passes, else 0

What is minimised, with P prompts of K samples (the paper ascends the negatives):

    CRPG    -(1/(P K)) sum_a (R - mean R) log pi(a)
            R = max(1 - log[pi/pi_ref](a) / KL_max, 0) R_cr
    CODPO   -(1/P) sum_prompts log sigma(beta (log[pi/pi_ref](a+) - log[pi/pi_ref](a-)))
                               + (lambda / |a+|) log pi(a+)
            a+ best of those satisfied, a- worst of those violated, or of all if none is; prompts
            with nothing satisfied add nothing
    CRRAFT  -(1/P) sum_prompts R_calib(a*) log pi(a*)
            a* best of those satisfied with log[pi/pi_ref] <= KL_max; if there is none a_bar, where
            that satisfies the judges: its R_calib is 1/2

R, R_calib and all choices carry no gradient. Several tasks: ``sum_l rho_l loss_l``, each over its
own prompts. Gradients by log pi are complex steps, ``Im f(x + ih) / h`` with a tiny h, which are
exact to rounding and need no derivation.

Axis legend: P prompts, K samples of each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.golden.optimizers.document import Draws, Family, Floats, drawn

_PROMPTS, _SAMPLES = 6, 4
_STEP = 1e-30
TASKS = ("crpg", "codpo", "crraft", "crpg", "codpo", "crraft")
"""Optimiser of each prompt, where a batch holds several tasks."""

Loss = Callable[[Any, Any, dict[str, Any]], Any]
"""Of log pi of the samples (P, K), log pi of the baselines (P,), and a case's inputs."""


def calibrated(inputs: dict[str, Any]) -> Floats:
    """Return R_calib, (P, K)."""
    return 1.0 / (1.0 + np.exp(inputs["baselines"][:, None] - inputs["rewards"]))


def _log_ratios(inputs: dict[str, Any]) -> Floats:
    return inputs["log_pi"] - inputs["log_reference"]


def crpg(log_pi_PK: Any, _: Any, inputs: dict[str, Any]) -> Any:
    """Return CRPG's loss."""
    fading_PK = np.maximum(1.0 - _log_ratios(inputs) / inputs["max_kl"], 0.0)
    rewards_PK = fading_PK * calibrated(inputs) * inputs["satisfied"]
    return -((rewards_PK - rewards_PK.mean()) * log_pi_PK).sum() / rewards_PK.size


def codpo(log_pi_PK: Any, _: Any, inputs: dict[str, Any]) -> Any:
    """Return CODPO's loss."""
    total = 0.0
    for p, (rewards, satisfied) in enumerate(
        zip(inputs["rewards"], inputs["satisfied"], strict=True)
    ):
        passing, failing = np.flatnonzero(satisfied), np.flatnonzero(~satisfied)
        if not len(passing):
            continue
        best = max(passing, key=lambda k: rewards[k])
        worst = min(failing if len(failing) else passing, key=lambda k: rewards[k])
        ratios = log_pi_PK[p] - inputs["log_reference"][p]
        gap = inputs["beta"] * (ratios[best] - ratios[worst])
        likelihood = inputs["lambda"] / inputs["num_tokens"][p, best] * log_pi_PK[p, best]
        total = total - np.log(1.0 + np.exp(-gap)) + likelihood
    return -total / len(log_pi_PK)


def crraft(log_pi_PK: Any, log_pi_bar_P: Any, inputs: dict[str, Any]) -> Any:
    """Return CRRAFT's loss."""
    weights_PK, ratios_PK = calibrated(inputs), _log_ratios(inputs)
    total = 0.0
    for p, rewards in enumerate(inputs["rewards"]):
        kept = [
            k
            for k in range(len(rewards))
            if inputs["satisfied"][p, k] and ratios_PK[p, k] <= inputs["max_kl"]
        ]
        if kept:
            best = max(kept, key=lambda k: rewards[k])
            total = total + weights_PK[p, best] * log_pi_PK[p, best]
        elif inputs["baseline_satisfied"][p]:
            total = total + 0.5 * log_pi_bar_P[p]
    return -total / len(log_pi_PK)


LOSSES: dict[str, Loss] = {"crpg": crpg, "codpo": codpo, "crraft": crraft}


def several_tasks(log_pi_PK: Any, log_pi_bar_P: Any, inputs: dict[str, Any]) -> Any:
    """Return sum_l rho_l loss_l, each over the prompts of its task."""
    total = 0.0
    for name, rho in zip(LOSSES, inputs["rho"], strict=True):
        own = [p for p, task in enumerate(TASKS) if task == name]
        part = {
            key: value[own] if isinstance(value, np.ndarray) and key != "rho" else value
            for key, value in inputs.items()
        }
        total = total + rho * LOSSES[name](log_pi_PK[own], log_pi_bar_P[own], part)
    return total


def _gradient(loss: Loss, inputs: dict[str, Any]) -> dict[str, Floats]:
    """Return the gradient by log pi of the samples and of the baselines."""
    given = [inputs["log_pi"], inputs["log_pi_baselines"]]
    found = [np.zeros(one.shape) for one in given]
    for which, values in enumerate(given):
        for place in np.ndindex(*values.shape):
            moved = [one.astype(complex) for one in given]
            moved[which][place] += 1j * _STEP
            found[which][place] = np.imag(loss(moved[0], moved[1], inputs)) / _STEP
    return {"samples": found[0], "baselines": found[1]}


def _inputs(draws: Draws, place: int) -> dict[str, Any]:
    shape = (_PROMPTS, _SAMPLES)
    log_pi_PK = drawn(draws, *shape, mean=-20.0, spread=5.0)
    satisfied_PK = draws.random(shape) < 0.6
    satisfied_PK[0], satisfied_PK[1] = True, False
    if place == 8:
        satisfied_PK[:] = True
    if place == 9:
        satisfied_PK[:] = False
    return {
        "rewards": drawn(draws, *shape, mean=-1.0, spread=2.0),
        "baselines": drawn(draws, _PROMPTS),
        "satisfied": satisfied_PK,
        "baseline_satisfied": draws.random(_PROMPTS) < 0.5,
        "log_pi": log_pi_PK,
        "log_pi_baselines": drawn(draws, _PROMPTS, mean=-25.0, spread=5.0),
        "log_reference": np.round(log_pi_PK - drawn(draws, *shape, spread=2.0), 3),
        "num_tokens": draws.integers(3, 12, shape),
        # Of more decimals than log-ratios have: none is at the limit.
        "max_kl": round(float(draws.uniform(1.0, 4.0)), 2) + 0.0005,
        "beta": round(float(draws.uniform(0.05, 0.5)), 2),
        "lambda": round(float(draws.uniform(0.0, 2.0)), 2),
        "rho": np.round(draws.uniform(0.2, 2.0, len(LOSSES)), 2),
    }


def case(draws: Draws, place: int) -> dict[str, Any]:
    """Return samples and verdicts, and each optimiser's loss and gradient."""
    inputs = _inputs(draws, place)
    every = {**LOSSES, "several_tasks": several_tasks}
    given = inputs["log_pi"], inputs["log_pi_baselines"]
    return {
        "inputs": {**inputs, "tasks": TASKS},
        "calibrated": calibrated(inputs),
        "losses": {name: float(loss(*given, inputs)) for name, loss in every.items()},
        "gradients": {name: _gradient(loss, inputs) for name, loss in every.items()},
    }


FAMILY = Family("cgpo", 2409, case)
