"""What a forward pass gives, on the device or on the host.

Axis legend: N candidates, P prompts, K objectives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    """(P, K) in the order of the batch if the gate reads the prompt; (N, K) if it reads the
    candidate, and after `by_candidate`."""
    coefficients: Tensor | None
    """Effective weights of the raw rewards, shaped as the gates would be."""

    def to_host(self) -> RewardOutput:
        """Return the output in host memory, moved by one copy."""
        if self.rewards_NK.device.type == "cpu":
            return self
        parts = self._parts()
        there = [part for part in parts if part is not None]
        flat = torch.cat([part.reshape(-1) for part in there]).cpu()
        pieces = iter(flat.split([part.numel() for part in there]))
        rewards, scores, gates, coefficients = (
            None if part is None else next(pieces).view(part.shape) for part in parts
        )
        assert rewards is not None
        return RewardOutput(rewards, scores, gates, coefficients)

    def by_candidate(self, gate_rows_N: Tensor) -> RewardOutput:
        """Return the output with a row of gates and coefficients for each candidate."""

        def spread(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[gate_rows_N.to(values.device)]

        return replace(self, gates=spread(self.gates), coefficients=spread(self.coefficients))

    def rows(self, rows: Sequence[int]) -> RewardOutput:
        """Return candidates of an output that has a row of everything for each."""
        index = torch.tensor(rows, dtype=torch.int64, device=self.rewards_NK.device)
        parts = (None if part is None else part[index] for part in self._parts())
        return RewardOutput(*parts)  # pyright: ignore[reportArgumentType]

    @classmethod
    def joined(cls, outputs: Sequence[RewardOutput]) -> RewardOutput:
        """Return the candidates of several such outputs as one."""
        columns = zip(*(output._parts() for output in outputs), strict=True)
        joined = [None if column[0] is None else torch.cat(column) for column in columns]
        return RewardOutput(*joined)  # pyright: ignore[reportArgumentType]

    def non_finite_candidates(self) -> list[int]:
        """Return the candidates of which a number is NaN or infinite; all have their own gates."""
        parts = (self.rewards_NK, self.scores_N, self.gates)
        # Sums tell at a third of the cost: one NaN or infinity makes its sum one or the other.
        if all(math.isfinite(float(part.sum())) for part in parts if part is not None):
            return []
        is_finite_N = torch.isfinite(self.rewards_NK).all(dim=-1)
        if self.scores_N is not None:
            is_finite_N &= torch.isfinite(self.scores_N)
        if self.gates is not None:
            is_finite_N &= torch.isfinite(self.gates).all(dim=-1)
        return torch.nonzero(~is_finite_N).flatten().tolist()

    def _parts(self) -> tuple[Tensor | None, ...]:
        return self.rewards_NK, self.scores_N, self.gates, self.coefficients
