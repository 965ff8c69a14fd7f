"""The reward heads, as their definition. Axis letters: N candidates, K objectives, H, T tokens."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor


def pooled_heads(
    hidden_TH: Tensor, positions_N: Tensor, weight_KH: Tensor, bias_K: Tensor | None
) -> Tensor:
    """Return ``r = W h + b`` for the hidden state at each position, in fp32.

    ArmoRM (arXiv:2406.12845), stage 1: one linear head per objective on the hidden state of the
    last token.
    """
    hidden_NH = hidden_TH.index_select(0, positions_N).float()
    return F.linear(hidden_NH, weight_KH, bias_K)
