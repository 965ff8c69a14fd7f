"""Are the objectives' gradients in conflict? Measured on a few parameters, for the log.

That PAMA leaves a sample out does not say that a policy is Pareto-stationary; the shortest convex
combination of the objectives' gradients does. It costs a backward pass an objective, so it is for
every so many steps, on an adapter or the last layer.

Axis legend: N samples, T tokens, K objectives, D numbers of the parameters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steerward.protocol.errors import InvalidRequest
from steerward.training.align.grpo.pareto import min_norm_weights

_LAYER = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class GradientDiagnostic:
    """How far a policy is from a point where no common improvement is left."""

    min_norm: float
    """Length of the shortest convex combination of the gradients; 0 at a Pareto-stationary
    point."""
    weights_K: Tensor
    """That give it; 0 for objectives without a gradient."""
    lowest_cosine: float
    """Of two objectives' gradients; 1 with fewer than two. Below 0 they conflict."""


def diagnose(gradients_KD: Tensor) -> GradientDiagnostic:
    """Return what the objectives' gradients say of each other.

    An objective whose gradient is exactly 0, since its rewards say nothing in this batch, is left
    out: the shortest combination would be 0 whatever the others want.

    Args:
        gradients_KD: One flat gradient a row.
    """
    gram_KK = gradients_KD.double() @ gradients_KD.double().T
    weights_K = torch.zeros_like(gram_KK[0])
    there = gram_KK.diagonal().nonzero().flatten()
    if len(there) == 0:
        return GradientDiagnostic(0.0, weights_K, 1.0)
    gram_KK = gram_KK[there][:, there]
    found_K = min_norm_weights(gram_KK)
    weights_K[there] = found_K
    lengths_K = gram_KK.diagonal().sqrt()
    min_norm = float((found_K @ gram_KK @ found_K).clamp(min=0).sqrt())
    lowest = float((gram_KK / torch.outer(lengths_K, lengths_K)).amin())
    return GradientDiagnostic(min_norm, weights_K, min(lowest, 1.0))


def flat_gradients(losses_K: Sequence[Tensor], parameters: Sequence[Tensor]) -> Tensor:
    """Return the gradient of each loss, one flat row each, (K, D); ``.grad`` is left alone.

    One backward pass a loss over a graph that they share, which is kept.
    """
    rows: list[Tensor] = []
    for loss in losses_K:
        parts = torch.autograd.grad(
            loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        rows.append(torch.cat([part.float().flatten() for part in parts]))
    return torch.stack(rows)


def probed_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a LoRA adapter, or else those of the last layer that learn.

    Raises:
        InvalidRequest: If there are neither.
    """
    learning = [(name, one) for name, one in model.named_parameters() if one.requires_grad]
    adapter = [one for name, one in learning if "lora_" in name]
    if adapter:
        return adapter
    layers = [
        (int(found.group(1)), one) for name, one in learning if (found := _LAYER.search(name))
    ]
    if not layers:
        raise InvalidRequest(
            "the policy has neither a LoRA adapter nor numbered layers that learn, whose gradients "
            "could be measured; set diagnostic_every=0",
            param="diagnostic_every",
        )
    last = max(number for number, _ in layers)
    return [one for number, one in layers if number == last]


def objective_losses(
    advantages_NK: Tensor, logps_NT: Tensor, *, mask_NT: Tensor, ratios_NT: Tensor | None = None
) -> list[Tensor]:
    """Return the policy-gradient loss of each objective alone: mean over samples, sum over tokens.

    Args:
        advantages_NK: Of each objective; NaN, where it does not apply, counts as 0.
        logps_NT: Log-probabilities of the completions' tokens, with a graph.
        mask_NT: Tokens that count.
        ratios_NT: pi / pi_old without a graph; None if both are the same.
    """
    weighted_NT = logps_NT * mask_NT
    if ratios_NT is not None:
        weighted_NT = weighted_NT * ratios_NT
    sums_N = weighted_NT.sum(dim=-1)
    return [
        -(column_N * sums_N).mean() for column_N in advantages_NK.nan_to_num(nan=0.0).unbind(-1)
    ]
