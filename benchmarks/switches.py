"""The techniques that can be switched off one at a time: the one table of the ablation.

A technique that is a setting of the engine is a row with that setting; a row whose setting this
engine does not have is left out. One that lies in what is sent is a row that changes the items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.workload import Item
from steerward.models.reward_model import RewardModel

Items = Sequence[Item]


def unchanged(items: Items) -> Items:
    """Return the items."""
    return items


def apart(items: Items) -> Items:
    """Return every candidate as an item of its own, behind a prompt that no other has.

    Prompts stay as long as they were: the first word is replaced by another, so that they part at
    their first token.
    """
    words = sorted({word for item in items for word in item.prompt.split()})
    parted: list[Item] = []
    for item in items:
        _, _, rest = item.prompt.partition(" ")
        for candidate in item.candidates:
            first = words[len(parted) % len(words)]
            parted.append(Item(f"{first} {rest}", [candidate]))
    return parted


def leave(_: RewardModel) -> None:
    """Change nothing."""


def compute_all_positions(model: RewardModel) -> None:
    """Let the last layer compute what nobody reads, too."""
    model.backbone.prunes = False


@dataclass(frozen=True, slots=True)
class Switch:
    """One technique switched off."""

    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Of the engine."""
    items: Callable[[Items], Items] = unchanged
    """What is sent in place of the workload's items."""
    model: Callable[[RewardModel], None] = leave
    """What is changed in the model."""


EVERYTHING_ON = "everything on"

SWITCHES: Mapping[str, Switch] = {
    EVERYTHING_ON: Switch(),
    "prompts not shared": Switch(items=apart),
    "passes of 512 tokens": Switch({"max_batch_tokens": 512}),
    "passes of 8,192 tokens": Switch({"max_batch_tokens": 8192}),
    "no prefix cache": Switch({"prefix_cache_bytes": 0}),
    "last layer whole": Switch(model=compute_all_positions),
    "deterministic": Switch({"deterministic": True}),
}
