"""Noise hides and moves tokens, and nothing else."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from steerward.models.packing import Group, PackedBatch
from steerward.models.plan import pack
from steerward.training.noise import mask_tokens, shift_positions

MASK = 999


@pytest.fixture
def batch() -> PackedBatch:
    torch.manual_seed(0)
    groups: list[Group] = []
    for first in range(1, 21):
        prompt = tuple(range(first, first + 40))
        groups.append(Group(prompt, [tuple(range(50, 70)), tuple(range(70, 75))], 38))
        groups.append(Group(prompt[::-4], [tuple(range(20, 26))], 4))
    return pack(groups)


def test_masked_share_is_hidden_and_what_is_read_is_not(batch: PackedBatch) -> None:
    masked = mask_tokens(batch, share=0.25, mask_token_id=MASK)
    hidden = masked.input_ids_T == MASK
    assert float(hidden.float().mean()) == pytest.approx(0.25, abs=0.05)
    assert torch.equal(masked.input_ids_T[~hidden], batch.input_ids_T[~hidden])
    assert not hidden[batch.last_positions_N].any()
    assert not hidden[batch.gating_positions_P].any()
    assert torch.equal(masked.position_ids_T, batch.position_ids_T)
    everything = mask_tokens(batch, share=1.0, mask_token_id=MASK).input_ids_T != MASK
    read = torch.cat([batch.last_positions_N, batch.gating_positions_P])
    assert sorted(read.tolist()) == torch.nonzero(everything).flatten().tolist()


def test_shifted_prompts_move_as_a_whole_and_stay_within_the_positions(
    batch: PackedBatch,
) -> None:
    shifted = shift_positions(batch, share=0.5, max_positions=100)
    offsets_T = shifted.position_ids_T - batch.position_ids_T
    starts = [*torch.nonzero(batch.position_ids_T == 0).flatten().tolist(), batch.num_tokens]
    offsets = [offsets_T[a:b].unique().tolist() for a, b in pairwise(starts)]
    assert all(len(found) == 1 for found in offsets)
    moved = [found[0] for found in offsets if found[0] > 0]
    assert len(moved) == pytest.approx(0.5 * len(offsets), rel=0.4)
    assert len(set(moved)) > len(moved) // 2
    assert int(shifted.position_ids_T.max()) < 100
    assert int(offsets_T.min()) == 0
    assert torch.equal(shifted.input_ids_T, batch.input_ids_T)


def test_prompts_that_fill_the_positions_stay(batch: PackedBatch) -> None:
    longest = int(batch.position_ids_T.max()) + 1
    full = shift_positions(batch, share=1.0, max_positions=longest)
    is_full_group = torch.zeros(batch.num_tokens, dtype=torch.bool)
    is_full_group[: 40 + 20 + 5] = True
    assert torch.equal(full.position_ids_T[is_full_group], batch.position_ids_T[is_full_group])
