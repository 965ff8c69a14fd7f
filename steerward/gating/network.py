"""The gating network: from the hidden state of one token to a weight per objective.

ArmoRM (arXiv:2406.12845, section 3.2): an MLP with ReLU, a softmax over the objectives at a
temperature, times a learned scale. URM weighs with an MLP with SELU and no softmax.

Axis legend: T packed tokens, P prompts, K objectives, H hidden, D gate hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from steerward.kernels.gating_mlp import Activation, Normalisation, gating_mlp

Reads = Literal["prompt", "candidate"]

_ACTIVATIONS = {"relu": torch.relu, "selu": torch.nn.functional.selu}


class GatingNetwork(nn.Module):
    """Gates over objectives, in float32.

    Args:
        layers: Linear layers, each with a bias; the last has one output per objective.
        activation: Between layers.
        normalisation: ``softmax`` puts gates on the simplex times `scale`.
        temperature: Divides the logits before the softmax.
        scale: Sum of the gates of a prompt.
        reads: Whether the gate reads the prompt's gating position or the candidate's last token.
        dropout: Share of hidden units dropped in training mode.
    """

    def __init__(
        self,
        layers: Sequence[nn.Linear],
        *,
        activation: Activation = "relu",
        normalisation: Normalisation = "softmax",
        temperature: float = 1.0,
        scale: float = 1.0,
        reads: Reads = "prompt",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.activation: Activation = activation
        self.normalisation: Normalisation = normalisation
        self.temperature = temperature
        self.scale = nn.Parameter(torch.tensor([scale], dtype=torch.float32))
        self.reads: Reads = reads
        self.dropout = dropout

    @classmethod
    def random(
        cls,
        *,
        hidden_size: int,
        gate_hidden_size: int,
        num_hidden_layers: int,
        num_objectives: int,
        temperature: float,
        scale: float = 1.0,
        dropout: float = 0.0,
    ) -> GatingNetwork:
        """Return a network to be trained."""
        widths = [hidden_size, *[gate_hidden_size] * num_hidden_layers, num_objectives]
        layers = [nn.Linear(i, o) for i, o in pairwise(widths)]
        return cls(layers, temperature=temperature, scale=scale, dropout=dropout)

    @property
    def num_objectives(self) -> int:
        """Outputs, K."""
        return self.weights[-1].shape[0]

    @property
    def weights(self) -> list[Tensor]:
        """Weight of each layer, (out, in)."""
        return [layer.weight for layer in self._linear_layers()]

    @property
    def biases(self) -> list[Tensor]:
        """Bias of each layer."""
        return [layer.bias for layer in self._linear_layers()]

    def _linear_layers(self) -> list[nn.Linear]:
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def forward(self, hidden_TH: Tensor, positions_P: Tensor | None = None) -> Tensor:
        """Return gates_PK; with softmax they are at least 0 and sum to `scale` over K.

        Args:
            hidden_TH: Final hidden states in any floating type.
            positions_P: Rows to read; all of them, in order, if None.
        """
        if self.training and self.dropout > 0.0:
            return self._forward_with_dropout(hidden_TH)
        if positions_P is None:
            positions_P = torch.arange(hidden_TH.shape[0], device=hidden_TH.device)
        return gating_mlp(
            hidden_TH,
            positions_P,
            weights=self.weights,
            biases=self.biases,
            activation=self.activation,
            normalisation=self.normalisation,
            temperature=self.temperature,
            scale=self.scale,
        )

    def _forward_with_dropout(self, hidden_PH: Tensor) -> Tensor:
        x = hidden_PH.float()
        *hidden_layers, last = self._linear_layers()
        for layer in hidden_layers:
            x = _ACTIVATIONS[self.activation](layer(x))
            x = torch.nn.functional.dropout(x, self.dropout)
        logits = last(x)
        if self.normalisation == "softmax":
            logits = torch.softmax(logits / self.temperature, dim=-1)
        return logits * self.scale
