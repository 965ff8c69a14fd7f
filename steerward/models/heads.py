"""Reward heads: one linear map per objective, always in float32.

Axis legend: T packed tokens, N candidates, K objectives, H hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from steerward.gating.network import GatingNetwork
from steerward.kernels.pooled_heads import pooled_heads

Architecture = Literal["armorm", "qrm", "urm", "sequence-classification", "steerward"]


class RewardHeads(nn.Module):
    """Linear heads that read the hidden state of a candidate's last token.

    Args:
        weight_KH: One row per objective.
        bias_K: Offsets, or None.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight_KH: Tensor, bias_K: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight_KH.detach().float().contiguous())
        bias = None if bias_K is None else bias_K.detach().float().contiguous()
        self.register_buffer("bias", bias)

    @property
    def num_objectives(self) -> int:
        """Heads, K."""
        return self.weight.shape[0]

    def forward(self, hidden_TH: Tensor, positions_N: Tensor | None = None) -> Tensor:
        """Return rewards_NK in float32.

        Args:
            hidden_TH: Final hidden states in any floating type.
            positions_N: Rows to read; all of them, in order, if None.
        """
        if positions_N is None:
            positions_N = torch.arange(hidden_TH.shape[0], device=hidden_TH.device)
        return pooled_heads(hidden_TH, positions_N, self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class HeadParts:
    """Everything of a checkpoint that is not its backbone."""

    architecture: Architecture
    heads: RewardHeads
    gate: GatingNetwork | None
    transform_KK: Tensor
