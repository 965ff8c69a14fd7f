"""A batch of several tasks: each task's own advantages, on one scale, and what to log of them.

Axis legend: N samples of the batch, all processes together, in groups of G of one prompt; P prompts
of a task, K samples of each that the task uses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steerward.protocol.errors import TrainingFailed, brief
from steerward.training.align.cgpo.advantages import (
    Samples,
    codpo_advantages,
    crpg_advantages,
    crraft_choices,
    restored_scale,
)
from steerward.training.align.cgpo.tasks import Task


@dataclass(frozen=True, slots=True)
class Batch:
    """What is known of every sample."""

    tasks_N: Tensor
    """Place of its task among the tasks."""
    rewards_N: Tensor
    """Of its task's reward column."""
    baselines_N: Tensor
    """Reward of its prompt's baseline response."""
    baseline_satisfied_N: Tensor
    """Booleans: whether that satisfies the judges."""
    satisfied_N: Tensor
    """Booleans: whether the sample does."""
    log_ratios_N: Tensor
    """log(pi / pi_ref) of the response, nats."""
    num_tokens_N: Tensor
    """Length of the response."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """What the loss needs, and what is logged."""

    advantages_N: Tensor
    """Scaled so that TRL's `dr_grpo` loss has the gradient of the paper."""
    baselines_N: Tensor
    """Weights of the baseline's log-likelihood, on the same scale, at the first of a group."""
    metrics: Mapping[str, float]
    """By name, `cgpo/<task>/...`."""
    has_signal: bool
    """Whether anything is reinforced: a sample that satisfies its judges, or a baseline."""


def weigh(
    batch: Batch,
    tasks: Sequence[Task],
    *,
    num_generations: int,
    max_completion_length: int,
    max_missing: float = 0.0,
) -> Weighed:
    """Return the advantages of a batch: those of each task, times rho and what TRL divides by.

    Args:
        batch: In groups of `num_generations`, each of one task.
        tasks: Of the run.
        num_generations: G.
        max_completion_length: Of the trainer, tokens.
        max_missing: Largest share of a task's samples whose reward may be missing; these count as
            violating, and are never the worst of their prompt.

    Raises:
        TrainingFailed: If too many rewards are missing, or a baseline's reward or a log-ratio is
            not finite.
    """
    advantages_N = torch.zeros_like(batch.rewards_N)
    baselines_N = torch.zeros_like(batch.rewards_N)
    metrics: dict[str, float] = {}
    has_signal = False
    groups = batch.tasks_N.view(-1, num_generations)[:, 0]
    for place, task in enumerate(tasks):
        chosen = groups == place
        if not chosen.any():
            continue
        samples = _samples(batch, task, chosen, num_generations, max_missing=max_missing)
        own_PK, baseline_P = _weights(
            samples,
            task,
            baseline_satisfied_P=_first(batch.baseline_satisfied_N, chosen, num_generations),
            scale=_scale(samples, task, len(batch.rewards_N), max_completion_length),
        )
        used = own_PK.shape[-1]
        # A view: what is written there is written into the result.
        advantages_N.view(-1, num_generations)[chosen, :used] = own_PK
        baselines_N.view(-1, num_generations)[chosen, 0] = baseline_P
        has_signal |= bool(samples.satisfied_PK.any() or (baseline_P > 0).any())
        metrics |= _metrics(samples, task, fallbacks=float((baseline_P > 0).float().mean()))
    return Weighed(advantages_N, baselines_N, metrics, has_signal)


def _samples(
    batch: Batch, task: Task, chosen: Tensor, num_generations: int, *, max_missing: float
) -> Samples:
    def taken(values_N: Tensor) -> Tensor:
        return values_N.view(-1, num_generations)[chosen, : task.num_samples]

    rewards_PK = taken(batch.rewards_N)
    baselines_P = _first(batch.baselines_N, chosen, num_generations)
    is_there_PK = rewards_PK.isfinite()
    share = 1 - float(is_there_PK.float().mean())
    if share > max_missing:
        raise TrainingFailed(
            f"task {brief(task.name)!r}: {share:.0%} of {rewards_PK.numel()} rewards are missing, "
            f"NaN or infinite, limit {max_missing:.0%}; column {brief(task.reward)!r} must answer "
            "every row, or raise max_missing_share"
        )
    best_P1 = rewards_PK.masked_fill(~is_there_PK, -torch.inf).amax(dim=-1, keepdim=True)
    samples = Samples(
        rewards_PK=torch.where(
            is_there_PK, rewards_PK, torch.where(best_P1.isfinite(), best_P1, baselines_P[:, None])
        ),
        baselines_P=baselines_P,
        satisfied_PK=taken(batch.satisfied_N) & is_there_PK,
        log_ratios_PK=taken(batch.log_ratios_N),
        num_tokens_PK=taken(batch.num_tokens_N),
    )
    for what, values, way_out in (
        ("rewards of baselines", samples.baselines_P, "score the baselines again"),
        ("log-ratios", samples.log_ratios_PK, "lower the learning rate"),
    ):
        broken = int((~values.isfinite()).sum())
        if broken:
            raise TrainingFailed(
                f"task {brief(task.name)!r}: {broken} of {values.numel()} {what} are missing, NaN "
                f"or infinite; {way_out}"
            )
    return samples


def _first(values_N: Tensor, chosen: Tensor, num_generations: int) -> Tensor:
    """Return the value of each chosen prompt, which is that of its first sample."""
    return values_N.view(-1, num_generations)[chosen, 0]


def _scale(samples: Samples, task: Task, batch: int, max_completion_length: int) -> float:
    prompts = samples.rewards_PK.shape[0]
    n = samples.rewards_PK.numel() if task.optimizer == "crpg" else prompts
    return restored_scale(
        weight=task.weight, batch=batch, n=n, max_completion_length=max_completion_length
    )


def _weights(
    samples: Samples, task: Task, *, baseline_satisfied_P: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    """Return the weights of a task's samples and of its prompts' baselines, scaled."""
    none_P = torch.zeros_like(samples.baselines_P)
    if task.optimizer == "crpg":
        return scale * crpg_advantages(samples, max_kl=task.max_kl), none_P
    if task.optimizer == "codpo":
        advantages_PK = codpo_advantages(
            samples, beta=task.beta, likelihood_weight=task.likelihood_weight
        )
        return scale * advantages_PK, none_P
    choices = crraft_choices(samples, max_kl=task.max_kl, baseline_satisfied_P=baseline_satisfied_P)
    return scale * choices.advantages_PK, scale * choices.baselines_P


def _metrics(samples: Samples, task: Task, *, fallbacks: float) -> dict[str, float]:
    """Return what is logged of a task; shares are of its samples, or of its prompts."""
    satisfied_PK = samples.satisfied_PK
    rewards_PK = samples.rewards_PK
    constant_P = rewards_PK.amax(dim=-1) == rewards_PK.amin(dim=-1)
    values = {
        "satisfied": satisfied_PK.float(),
        "all_violated_prompts": (~satisfied_PK.any(dim=-1)).float(),
        "constant_prompts": constant_P.float(),
        "reward": rewards_PK,
        "calibrated_reward": samples.calibrated,
        "log_ratio": samples.log_ratios_PK,
        "above_max_kl": (samples.log_ratios_PK > task.max_kl).float(),
    }
    found = {f"cgpo/{task.name}/{name}": float(value.mean()) for name, value in values.items()}
    return found | {f"cgpo/{task.name}/baselines_chosen": fallbacks}
