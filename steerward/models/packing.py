"""A packed batch: groups of a shared prefix and its suffixes, laid end to end without padding.

Pure data layout. A sequence alone is one segment; a group is one segment for its prefix and
one for each suffix, which attends to the prefix and to itself and whose positions go on where
the prefix ended. So a prompt is computed once however many candidates answer it.

Axis legend: T packed tokens, N candidates, P prompts (groups).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steerward.models.chat import EncodedConversation


@dataclass(frozen=True, slots=True)
class Group:
    """Candidates of one prompt: a shared prefix and what follows it for each."""

    prefix: Sequence[int]
    suffixes: Sequence[Sequence[int]]
    gating_position: int
    """Index of the gate's token within the prefix."""

    @property
    def num_tokens(self) -> int:
        """Tokens that a forward pass over this group computes."""
        return len(self.prefix) + sum(map(len, self.suffixes))


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens ``start:end`` that attend causally to each other and fully to the prefix.

    Segments follow each other without a gap; a prefix is an earlier segment.
    """

    start: int
    end: int
    prefix_start: int = 0
    prefix_end: int = 0


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """One forward pass. All tensors are int64 on the host until `to` moves them."""

    input_ids_T: Tensor
    position_ids_T: Tensor
    segments: tuple[Segment, ...]
    last_positions_N: Tensor
    """Packed index of each candidate's last token."""
    gating_positions_P: Tensor
    """Packed index of each prompt's gating token."""
    prompt_index_N: Tensor
    """Prompt of each candidate."""

    @property
    def num_tokens(self) -> int:
        """Tokens computed, T."""
        return self.input_ids_T.shape[0]

    @property
    def num_candidates(self) -> int:
        """Candidates scored, N."""
        return self.last_positions_N.shape[0]

    def to(self, device: torch.device) -> PackedBatch:
        """Return the batch on a device, moved by one copy."""
        if device.type == "cpu":
            return self
        parts = (
            self.input_ids_T,
            self.position_ids_T,
            self.last_positions_N,
            self.gating_positions_P,
            self.prompt_index_N,
        )
        staged = torch.cat(parts).pin_memory().to(device, non_blocking=True)
        ids, positions, last, gating, prompt = staged.split([part.shape[0] for part in parts])
        return PackedBatch(ids, positions, self.segments, last, gating, prompt)


def common_prefix_length(sequences: Sequence[Sequence[int]]) -> int:
    """Return how many leading items all sequences share."""
    first, *others = sequences
    length = min(map(len, sequences))
    for other in others:
        # The slices agree as a rule, and comparing them is a loop in C.
        if first[:length] != other[:length]:
            length = next(i for i in range(length) if first[i] != other[i])
    return length


def group_conversations(conversations: Sequence[EncodedConversation]) -> list[Group]:
    """Return the candidates of one prompt as groups, in order.

    One group as a rule. Where a template renders the prompt differently for different
    candidates, so that no prefix holding the gating token is shared, each is a group of its own.
    """
    prefix_length = min(
        common_prefix_length([conversation.ids for conversation in conversations]),
        *(conversation.prompt_length for conversation in conversations),
    )
    gating_positions = {conversation.gating_position for conversation in conversations}
    is_shared = len(gating_positions) == 1 and max(gating_positions) < prefix_length
    if len(conversations) > 1 and not is_shared:
        return [group for one in conversations for group in group_conversations([one])]
    prefix = conversations[0].ids[:prefix_length]
    suffixes = [conversation.ids[prefix_length:] for conversation in conversations]
    return [Group(prefix, suffixes, gating_positions.pop())]


def pack(groups: Sequence[Group]) -> PackedBatch:
    """Lay groups end to end; candidates keep the order of groups and of suffixes."""
    ids: list[int] = []
    positions: list[int] = []
    segments: list[Segment] = []
    last: list[int] = []
    gating: list[int] = []
    prompt_index: list[int] = []
    for p, group in enumerate(groups):
        prefix_start = len(ids)
        prefix_end = prefix_start + len(group.prefix)
        gating.append(prefix_start + group.gating_position)
        ids.extend(group.prefix)
        positions.extend(range(len(group.prefix)))
        is_single = len(group.suffixes) == 1
        if not is_single and group.prefix:
            segments.append(Segment(prefix_start, prefix_end))
        for suffix in group.suffixes:
            start = len(ids)
            ids.extend(suffix)
            positions.extend(range(len(group.prefix), len(group.prefix) + len(suffix)))
            segments.append(
                Segment(prefix_start, len(ids))
                if is_single
                else Segment(start, len(ids), prefix_start, prefix_end)
            )
            last.append(len(ids) - 1)
            prompt_index.append(p)
    return PackedBatch(
        torch.tensor(ids, dtype=torch.int64),
        torch.tensor(positions, dtype=torch.int64),
        tuple(segments),
        torch.tensor(last, dtype=torch.int64),
        torch.tensor(gating, dtype=torch.int64),
        torch.tensor(prompt_index, dtype=torch.int64),
    )
