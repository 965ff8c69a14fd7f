"""Coefficients and scores, as their definition. Axis letters: N candidates, P prompts, K."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812 (the usual name)
from torch import Tensor


def aggregate(
    rewards_NK: Tensor, gates_PK: Tensor, prompt_index_N: Tensor, transform_KK: Tensor
) -> tuple[Tensor, Tensor]:
    """Return scores and coefficients, in fp32.

    ArmoRM (arXiv:2406.12845), stage 2. The score is ``s = sum_j g_j r'_j`` with ``r' = r @ M``;
    moved to the gate, ``c_i = sum_j g_j M_ij`` and ``s = sum_i c_i r_i``.
    """
    coefficients_PK = F.linear(gates_PK, transform_KK)
    scores_N = (coefficients_PK.index_select(0, prompt_index_N) * rewards_NK).sum(dim=-1)
    return scores_N, coefficients_PK
