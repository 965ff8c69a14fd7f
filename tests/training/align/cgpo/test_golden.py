"""CGPO's weights against the gradients of its losses, which numpy finds without a derivation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from steerward.training.align.cgpo.advantages import (
    Samples,
    codpo_advantages,
    codpo_pairs,
    crpg_advantages,
    crraft_choices,
)
from steerward.training.align.cgpo.batch import Batch, weigh
from steerward.training.align.cgpo.tasks import OPTIMIZERS, Task
from tests.golden_optimizers import assert_close, optimizer_cases, tensor_of

cases = pytest.mark.parametrize("case", optimizer_cases("cgpo"), ids=range(10))


def samples_of(inputs: dict[str, Any]) -> Samples:
    return Samples(
        rewards_PK=tensor_of(inputs["rewards"]),
        baselines_P=tensor_of(inputs["baselines"]),
        satisfied_PK=torch.tensor(inputs["satisfied"]),
        log_ratios_PK=tensor_of(inputs["log_pi"]) - tensor_of(inputs["log_reference"]),
        num_tokens_PK=tensor_of(inputs["num_tokens"]),
    )


def surrogate(advantages: Tensor, log_pi: Any, *, n: int) -> Tensor:
    """Return the loss of a policy gradient, -(1/n) sum A log pi."""
    return -(advantages * tensor_of(log_pi)).sum() / n


@cases
def test_rewards_are_calibrated_by_the_baseline(case: dict[str, Any]) -> None:
    assert_close(samples_of(case["inputs"]).calibrated, case["calibrated"])


@cases
def test_crpg_has_the_loss_and_the_gradient_of_the_paper(case: dict[str, Any]) -> None:
    inputs = case["inputs"]
    found_PK = crpg_advantages(samples_of(inputs), max_kl=inputs["max_kl"])
    loss = surrogate(found_PK, inputs["log_pi"], n=found_PK.numel())
    assert_close(loss, case["losses"]["crpg"])
    assert_close(-found_PK / found_PK.numel(), case["gradients"]["crpg"]["samples"])


@cases
def test_codpo_has_the_loss_and_the_gradient_of_the_paper(case: dict[str, Any]) -> None:
    inputs, samples = case["inputs"], samples_of(case["inputs"])
    found_PK = codpo_advantages(samples, beta=inputs["beta"], likelihood_weight=inputs["lambda"])
    assert_close(-found_PK / len(found_PK), case["gradients"]["codpo"]["samples"])
    # Its loss, of the pairs that were chosen.
    best_P1, worst_P1 = (one.unsqueeze(-1) for one in codpo_pairs(samples))
    best_P, lengths_P = (
        values.gather(-1, best_P1)[:, 0]
        for values in (tensor_of(inputs["log_pi"]), samples.num_tokens_PK)
    )
    ratios_PK = samples.log_ratios_PK
    gaps_P = (ratios_PK.gather(-1, best_P1) - ratios_PK.gather(-1, worst_P1))[:, 0]
    gains_P = logsigmoid(inputs["beta"] * gaps_P) + inputs["lambda"] / lengths_P * best_P
    gains_P = gains_P.masked_fill(~samples.satisfied_PK.any(dim=-1), 0.0)
    assert_close(-gains_P.mean(), case["losses"]["codpo"])


@cases
def test_crraft_has_the_loss_and_the_gradient_of_the_paper(case: dict[str, Any]) -> None:
    inputs = case["inputs"]
    choices = crraft_choices(
        samples_of(inputs),
        max_kl=inputs["max_kl"],
        baseline_satisfied_P=torch.tensor(inputs["baseline_satisfied"]),
    )
    n = len(choices.baselines_P)
    loss = surrogate(choices.advantages_PK, inputs["log_pi"], n=n)
    loss = loss + surrogate(choices.baselines_P, inputs["log_pi_baselines"], n=n)
    assert_close(loss, case["losses"]["crraft"])
    assert_close(-choices.advantages_PK / n, case["gradients"]["crraft"]["samples"])
    assert_close(-choices.baselines_P / n, case["gradients"]["crraft"]["baselines"])


@cases
def test_batch_of_several_tasks_has_the_sum_of_their_losses(case: dict[str, Any]) -> None:
    inputs, samples = case["inputs"], samples_of(case["inputs"])
    group = samples.rewards_PK.shape[-1]

    def repeated(values: Any) -> Tensor:
        return torch.as_tensor(values).repeat_interleave(group)

    batch = Batch(
        tasks_N=repeated([OPTIMIZERS.index(name) for name in inputs["tasks"]]),
        rewards_N=samples.rewards_PK.flatten(),
        baselines_N=repeated(samples.baselines_P),
        baseline_satisfied_N=repeated(inputs["baseline_satisfied"]),
        satisfied_N=samples.satisfied_PK.flatten(),
        log_ratios_N=samples.log_ratios_PK.flatten(),
        num_tokens_N=samples.num_tokens_PK.flatten(),
    )
    tasks = [
        Task(
            name,
            "reward",
            optimizer=name,
            max_kl=inputs["max_kl"],
            beta=inputs["beta"],
            likelihood_weight=inputs["lambda"],
            weight=rho,
        )
        for name, rho in zip(OPTIMIZERS, inputs["rho"], strict=True)
    ]
    found = weigh(batch, tasks, num_generations=group, max_completion_length=7)
    # As TRL's loss divides.
    divisor = len(batch.rewards_N) * 7
    expected = case["gradients"]["several_tasks"]
    assert_close(-found.advantages_N.view(-1, group) / divisor, expected["samples"])
    assert_close(-found.baselines_N.view(-1, group)[:, 0] / divisor, expected["baselines"])
    assert not found.baselines_N.view(-1, group)[:, 1:].any()
