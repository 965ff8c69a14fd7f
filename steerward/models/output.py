"""What a forward pass gives, on the device or on the host.

Axis legend: N candidates, P prompts, K objectives.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class RewardOutput:
    """Rewards of a batch and what the gate made of them, all float32."""

    rewards_NK: Tensor
    """Raw head outputs, before the reward transform."""
    scores_N: Tensor | None
    """The checkpoint's own score; None if it has several objectives and no gate."""
    gates: Tensor | None
    """(P, K) if the gate reads the prompt, (N, K) if it reads the candidate."""
    coefficients: Tensor | None
    """Effective weights of the raw rewards, shaped as the gates would be."""

    def to_host(self) -> RewardOutput:
        """Return the output in host memory, moved by one copy."""
        if self.rewards_NK.device.type == "cpu":
            return self
        parts = [self.rewards_NK, self.scores_N, self.gates, self.coefficients]
        there = [part for part in parts if part is not None]
        flat = torch.cat([part.reshape(-1) for part in there]).cpu()
        pieces = iter(flat.split([part.numel() for part in there]))
        rewards, scores, gates, coefficients = (
            None if part is None else next(pieces).view(part.shape) for part in parts
        )
        assert rewards is not None
        return RewardOutput(rewards, scores, gates, coefficients)

    def non_finite_candidates(self, prompt_index_N: Tensor) -> list[int]:
        """Return the candidates of which a number is NaN or infinite."""
        is_finite_N = torch.isfinite(self.rewards_NK).all(dim=-1)
        if self.scores_N is not None:
            is_finite_N &= torch.isfinite(self.scores_N)
        if self.gates is not None:
            is_finite = torch.isfinite(self.gates).all(dim=-1)
            per_candidate = len(self.gates) == len(self.rewards_NK)
            is_finite_N &= is_finite if per_candidate else is_finite[prompt_index_N]
        return torch.nonzero(~is_finite_N).flatten().tolist()
