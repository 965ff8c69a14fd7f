"""The gating network, as its definition. Axis letters: P prompts, K objectives, H, D, T tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor


def gating_mlp(
    hidden_TH: Tensor,
    positions_P: Tensor,
    *,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    activation: str,
    normalisation: str,
    temperature: float,
    scale: Tensor,
) -> Tensor:
    """Return the gates of each prompt, in fp32.

    ArmoRM (arXiv:2406.12845), stage 2: a shallow MLP on the hidden state at the gating position,
    ``g = scale * softmax(x / temperature)`` over the objectives; temperature and scale are those
    of the released model code. Without normalisation ``g = scale * x``.
    """
    activate = {"relu": F.relu, "selu": F.selu}[activation]
    x_PD = hidden_TH.index_select(0, positions_P).float()
    for weight_DD, bias_D in zip(weights[:-1], biases[:-1], strict=True):
        x_PD = activate(F.linear(x_PD, weight_DD, bias_D))
    x_PK = F.linear(x_PD, weights[-1], biases[-1])
    if normalisation == "softmax":
        x_PK = F.softmax(x_PK / temperature, dim=-1)
    return x_PK * scale.float().reshape(())
