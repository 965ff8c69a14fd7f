"""Changes to a step's packed batch that keep a small backbone from learning rows by heart.

Axis legend: T packed tokens, G stretches of tokens whose positions start at 0.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from steerward.models.packing import PackedBatch


def mask_tokens(batch: PackedBatch, *, share: float, mask_token_id: int) -> PackedBatch:
    """Return the batch with about this share of its tokens replaced by the mask token.

    The tokens at which heads and gate read stay as they are.
    """
    hidden_T = torch.rand(batch.num_tokens, device=batch.input_ids_T.device) < share
    hidden_T[batch.last_positions_N] = False
    hidden_T[batch.gating_positions_P] = False
    return replace(batch, input_ids_T=batch.input_ids_T.masked_fill(hidden_T, mask_token_id))


def shift_positions(batch: PackedBatch, *, share: float, max_positions: int) -> PackedBatch:
    """Return the batch with about this share of its prompts at later positions.

    A prompt and all its responses move together, to anywhere that ends before `max_positions`.
    """
    positions_T = batch.position_ids_T
    group_T = (positions_T == 0).cumsum(dim=-1) - 1
    last_G = torch.zeros(int(group_T[-1]) + 1, dtype=torch.int64, device=positions_T.device)
    last_G = last_G.scatter_reduce(0, group_T, positions_T, reduce="amax")
    room_G = (max_positions - last_G).clamp(min=1)
    offset_G = (torch.rand(len(last_G), device=positions_T.device) * room_G).long()
    offset_G *= torch.rand(len(last_G), device=positions_T.device) < share
    return replace(batch, position_ids_T=positions_T + offset_G[group_T])
