"""What CGPO makes of rewards and verdicts: how much each sample's likelihood is to rise or fall.

CGPO is "The Perfect Blend" (arXiv:2409.20370). Its three optimisers are policy gradients

    g = (1/n) sum_i  A_i * grad log pi(a_i | s)

that differ in the A_i, which carry no gradient. The functions here return the A_i as the paper
has them, with n = P * K for CRPG and n = P for CODPO and CRRAFT: a prompt that is skipped adds
nothing to the sum and still counts in n, so that a batch with few good samples takes a smaller
step. `restored_scale` undoes what TRL's loss divides by.

A violated sample never wins and never loses its place by the sign of a reward: samples that may not
be chosen are at minus or plus infinity, not at zero.

Axis legend: P prompts, K samples of each prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Samples:
    """The samples of one task in one batch, K of each of P prompts."""

    rewards_PK: Tensor
    """Raw rewards r(s, a)."""
    baselines_P: Tensor
    """Raw rewards r(s, a_bar) of each prompt's baseline response."""
    satisfied_PK: Tensor
    """Booleans: whether every applicable judge passes the sample."""
    log_ratios_PK: Tensor
    """log(pi / pi_ref) of the whole response, nats."""
    num_tokens_PK: Tensor
    """|a|, the length of the response."""

    @property
    def calibrated(self) -> Tensor:
        """R_calib of each sample, (P, K)."""
        return calibrated_rewards(self.rewards_PK, self.baselines_P.unsqueeze(-1))


@dataclass(frozen=True, slots=True)
class Choices:
    """What CRRAFT trains on, with the weights A."""

    advantages_PK: Tensor
    """R_calib at the chosen sample of each prompt, zero elsewhere."""
    baselines_P: Tensor
    """Weight of log pi(a_bar | s): 1/2 where the baseline is chosen, zero elsewhere."""


def calibrated_rewards(rewards: Tensor, baselines: Tensor) -> Tensor:
    """Return R_calib = sigma(r(s, a) - r(s, a_bar)), in (0, 1); 1/2 is as good as the baseline.

    Section "calibrated reward" of arXiv:2409.20370. It is comparable between prompts, and it is
    what makes a hard zero for a violation mean something: of raw rewards, zero beats a negative.
    """
    return torch.sigmoid(rewards - baselines)


def constrained_rewards(calibrated: Tensor, satisfied: Tensor) -> Tensor:
    """Return R_cr: the calibrated reward of what satisfies every judge, zero of what does not."""
    return torch.where(satisfied, calibrated, torch.zeros_like(calibrated))


def kl_factor(log_ratios: Tensor, *, max_kl: float) -> Tensor:
    """Return max(1 - log(pi/pi_ref) / KL_max, 0), which CRPG has instead of a KL penalty.

    As the paper prints it, it is above 1 where the log-ratio is negative.

    Args:
        log_ratios: Of whole responses, nats.
        max_kl: KL_max, nats; infinity gives 1 everywhere.
    """
    return (1.0 - log_ratios / max_kl).clamp(min=0.0)


def crpg_advantages(samples: Samples, *, max_kl: float) -> Tensor:
    """Return R_tilde - mean(R_tilde), R_tilde = kl_factor * R_cr, (P, K).

    The mean is over the batch, all prompts of the task, and not over a prompt's group.

    Args:
        samples: Of one task.
        max_kl: KL_max, nats.
    """
    constrained_PK = constrained_rewards(samples.calibrated, samples.satisfied_PK)
    weighed_PK = kl_factor(samples.log_ratios_PK, max_kl=max_kl) * constrained_PK
    return weighed_PK - weighed_PK.mean()


def codpo_pairs(samples: Samples) -> tuple[Tensor, Tensor]:
    """Return the columns of a+ and a- of each prompt, both (P,).

    a+ is the best reward of those satisfied; a- is the worst reward of those violated, or of all
    where none is violated. Where none is satisfied the first means nothing.
    """
    rewards_PK, satisfied_PK = samples.rewards_PK, samples.satisfied_PK
    best_P = rewards_PK.masked_fill(~satisfied_PK, -torch.inf).argmax(dim=-1)
    all_pass_P1 = satisfied_PK.all(dim=-1, keepdim=True)
    worst_P = rewards_PK.masked_fill(satisfied_PK & ~all_pass_P1, torch.inf).argmin(dim=-1)
    return best_P, worst_P


def codpo_advantages(samples: Samples, *, beta: float, likelihood_weight: float) -> Tensor:
    """Return the weights of the gradient of CODPO's objective, (P, K).

    The objective, which rises (the paper's update has a slip of sign), is of each prompt

        log sigma(h) + (lambda / |a+|) log pi(a+),   h = beta * (log-ratio(a+) - log-ratio(a-))

    so that a+ has beta * sigma(-h) + lambda / |a+| and a- has -beta * sigma(-h). Prompts with
    nothing satisfied are skipped. Where all samples are satisfied with equal rewards, a+ is a- and
    only the likelihood is left.

    Args:
        samples: Of one task.
        beta: Of the preference term, as in DPO.
        likelihood_weight: lambda.
    """
    best_P, worst_P = codpo_pairs(samples)
    best_P1, worst_P1 = best_P.unsqueeze(-1), worst_P.unsqueeze(-1)
    ratios_PK = samples.log_ratios_PK
    h_P1 = beta * (ratios_PK.gather(-1, best_P1) - ratios_PK.gather(-1, worst_P1))
    pull_P1 = beta * torch.sigmoid(-h_P1)
    likelihood_P1 = likelihood_weight / samples.num_tokens_PK.gather(-1, best_P1).clamp(min=1)
    advantages_PK = torch.zeros_like(samples.rewards_PK)
    advantages_PK.scatter_add_(-1, best_P1, pull_P1 + likelihood_P1)
    advantages_PK.scatter_add_(-1, worst_P1, -pull_P1)
    skipped_P1 = ~samples.satisfied_PK.any(dim=-1, keepdim=True)
    return advantages_PK.masked_fill(skipped_P1, 0.0)


def crraft_choices(samples: Samples, *, max_kl: float, baseline_satisfied_P: Tensor) -> Choices:
    """Return what each prompt is trained on: its best sample, its baseline, or nothing.

    Samples that are violated, or whose log-ratio is above KL_max (the paper prints a quotient of
    two logarithms and means the logarithm of the quotient), are dropped. Of the rest the highest
    reward is chosen, with weight R_calib; with nothing left it is a_bar, if that satisfies all
    judges, with weight sigma(0) = 1/2.

    Args:
        samples: Of one task.
        max_kl: KL_max, nats.
        baseline_satisfied_P: Whether the baseline satisfies all judges.
    """
    kept_PK = samples.satisfied_PK & (samples.log_ratios_PK <= max_kl)
    best_P1 = samples.rewards_PK.masked_fill(~kept_PK, -torch.inf).argmax(dim=-1, keepdim=True)
    any_kept_P1 = kept_PK.any(dim=-1, keepdim=True)
    weights_P1 = samples.calibrated.gather(-1, best_P1) * any_kept_P1
    advantages_PK = torch.zeros_like(samples.rewards_PK).scatter(-1, best_P1, weights_P1)
    falls_back_P = ~any_kept_P1.squeeze(-1) & baseline_satisfied_P
    return Choices(advantages_PK, 0.5 * falls_back_P.to(samples.rewards_PK.dtype))


def restored_scale(*, weight: float, batch: int, n: int, max_completion_length: int) -> float:
    """Return what advantages are multiplied by for TRL's loss to have the gradient sum rho_l g_l.

    TRL's `dr_grpo` divides the sum over a batch by its samples times `max_completion_length`; the
    paper divides the sum over a task by n. Clipping and Adam hide a common scale, a sum over tasks
    with weights rho_l does not.

    Args:
        weight: rho_l of the task.
        batch: Samples of all tasks in the batch, all processes together.
        n: What the paper divides by: P * K samples for CRPG, P prompts for CODPO and CRRAFT.
        max_completion_length: Of the trainer, tokens.
    """
    return weight * max_completion_length * batch / n
