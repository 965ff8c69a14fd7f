"""A packed batch: conversations laid end to end without padding, what they share laid down once.

Pure data. Which tokens are shared is decided by `steerward.models.plan`; here is what a forward
pass is given.

Axis legend: T packed tokens, R read positions, N candidates, P prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steerward.kernels.prefix_attention import AttentionLayout, LayoutTables
from steerward.models.chat import EncodedConversation
from steerward.models.key_values import CachedSpan, Capture, GateSlot


@dataclass(frozen=True, slots=True)
class Group:
    """Candidates of one prompt: a shared prefix and what follows it for each."""

    prefix: tuple[int, ...]
    suffixes: list[tuple[int, ...]]
    gating_position: int
    """Index of the gate's token in each conversation; as a rule it lies in the prefix."""

    @property
    def num_tokens(self) -> int:
        """Tokens that a forward pass over this group alone computes."""
        return len(self.prefix) + sum(map(len, self.suffixes))


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """One forward pass. All tensors are int64 on the host until `to` moves them."""

    input_ids_T: Tensor
    position_ids_T: Tensor
    layout: AttentionLayout
    """What each token sees. Keys are those of `cached`, end to end, then those of the batch."""
    read_layout: AttentionLayout
    """What each read position sees, a run of its own: all that the last layer needs."""
    read_positions_R: Tensor
    """Packed indices, ascending, at which heads or gate read."""
    last_rows_N: Tensor
    """Read position of each candidate's last token."""
    gating_rows_P: Tensor
    """Read position of the gating token of each prompt whose gates are not known yet."""
    prompt_index_N: Tensor
    """Row of each candidate in the gates: first those of `gating_rows_P`, then the known ones."""
    tables: LayoutTables | None = None
    """The layouts as the kernel reads them, where there is one."""
    read_tables: LayoutTables | None = None
    cached: tuple[CachedSpan, ...] = ()
    captures: tuple[Capture, ...] = ()
    gate_slots: tuple[GateSlot, ...] = ()
    """Where the gates of `gating_rows_P` go, for later batches."""
    known_gates: tuple[GateSlot, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Tokens computed, T."""
        return self.input_ids_T.shape[0]

    @property
    def num_candidates(self) -> int:
        """Candidates scored, N."""
        return self.last_rows_N.shape[0]

    @property
    def last_positions_N(self) -> Tensor:  # noqa: N802 (the axis letter)
        """Packed index of each candidate's last token."""
        return self.read_positions_R[self.last_rows_N]

    @property
    def gating_positions_P(self) -> Tensor:  # noqa: N802 (the axis letter)
        """Packed index of each prompt's gating token."""
        return self.read_positions_R[self.gating_rows_P]

    def to(self, device: torch.device) -> PackedBatch:
        """Return the batch on a device, moved by one copy."""
        if self.input_ids_T.device.type == device.type:
            return self
        tables = LayoutTables.build(self.layout), LayoutTables.build(self.read_layout)
        parts: list[Tensor] = [
            *(getattr(self, name) for name in _TENSORS),
            *(vector for each in tables for vector in (each.runs, each.spans, each.blocks)),
        ]
        staged = torch.cat(parts).pin_memory().to(device, non_blocking=True)
        moved = staged.split([part.shape[0] for part in parts])
        count = len(_TENSORS)
        return replace(
            self,
            **dict(zip(_TENSORS, moved[:count], strict=True)),
            tables=LayoutTables(*moved[count : count + 3]),
            read_tables=LayoutTables(*moved[count + 3 :]),
        )


_TENSORS = (
    "input_ids_T",
    "position_ids_T",
    "read_positions_R",
    "last_rows_N",
    "gating_rows_P",
    "prompt_index_N",
)


def common_prefix_length(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many leading items two sequences share."""
    length = min(len(one), len(other))
    # Slices agree or differ early as a rule, and comparing them is a loop in C.
    if one[:length] == other[:length]:
        return length
    return next(i for i in range(length) if one[i] != other[i])


def group_conversations(conversations: Sequence[EncodedConversation]) -> list[Group]:
    """Return conversations in order, neighbours with the same prompt as one group.

    One group as a rule; more where a template renders the prompt differently for different
    candidates. Where a conversation is cut depends on itself alone, never on its neighbours.
    """
    groups: list[Group] = []
    for conversation in conversations:
        length = conversation.prompt_length
        prefix, suffix = tuple(conversation.ids[:length]), tuple(conversation.ids[length:])
        group = groups[-1] if groups else None
        if group and (group.prefix, group.gating_position) == (
            prefix,
            conversation.gating_position,
        ):
            group.suffixes.append(suffix)
        else:
            groups.append(Group(prefix, [suffix], conversation.gating_position))
    return groups
