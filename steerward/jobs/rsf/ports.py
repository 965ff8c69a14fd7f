"""What the loop needs of the world: a policy that generates, a reward model, a trainer.

It does not care where they live: in the server that runs it, or behind a URL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from steerward.protocol.conditioning import ConditioningRule
from steerward.protocol.directions import PreferenceDirection

Turns = Sequence[Mapping[str, str]]
"""A conversation: role and content of each turn."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn."""

    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    """Sample i of a call draws from a stream of its own that depends on this and i."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What a policy answered."""

    text: str
    tokens: int | None
    """Tokens drawn, the closing one among them; None: only the sum of all is known."""
    is_finished: bool
    """Whether it ended by itself, and was not cut."""


@dataclass(frozen=True, slots=True)
class Generated:
    """Completions of one prompt under one direction."""

    completions: Sequence[Completion]
    tokens: int
    """Of all completions."""
    weight_version: str


class Generator(Protocol):
    """The policy that is being trained, as it is served now."""

    @property
    def rule(self) -> ConditioningRule:
        """How it reads a direction."""
        ...

    async def generate(
        self,
        messages: Turns,
        *,
        direction: PreferenceDirection,
        num: int,
        sampling: Sampling,
    ) -> Generated:
        """Draw completions for a prompt, conditioned on a direction.

        Args:
            messages: Ending with a user turn.
            direction: In the rule's names.
            num: Completions.
            sampling: How they are drawn.

        Raises:
            SteerwardError: Why there are none.
        """
        ...


@dataclass(frozen=True, slots=True)
class Scored:
    """Rewards of completions of one prompt, in their order."""

    rewards: Sequence[Mapping[str, float]]
    """By objective, as the heads give them."""
    scores: Sequence[float | None]
    """The reward model's own score."""
    weight_version: str


class RewardModel(Protocol):
    """What scores the completions."""

    @property
    def name(self) -> str:
        """Under which it is served."""
        ...

    @property
    def objectives(self) -> Sequence[str]:
        """Names of its rewards."""
        ...

    @property
    def reference(self) -> Mapping[str, tuple[float, float]] | None:
        """Mean and spread of each objective over its reference set; None if not known."""
        ...

    async def score(self, messages: Turns, completions: Sequence[str]) -> Scored:
        """Score completions of one prompt.

        Raises:
            SteerwardError: Why there are no rewards.
        """
        ...


@dataclass(frozen=True, slots=True)
class TrainingWork:
    """What one fine-tuning is given."""

    data: Path
    """JSON lines: {"messages": [...]}, the last turn the assistant's, which alone is learned; the
    system turn holds the direction."""
    base: Path
    """Checkpoint folder of the policy that the job began with: tokenizer, template, weights."""
    start: Path | None
    """Weights, or adapter, of the iteration before; None: the first begins with `base`."""
    out: Path
    """Folder to be made: whole, or not at all."""
    work: Path
    """Folder for what lets a killed training go on; may exist."""
    seed: int


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """How a fine-tuning went."""

    loss: float
    """Mean cross-entropy of the last tenth of the steps, in nats a token."""
    kl: float
    """From `base`, in nats a token of (at most 256 of) the examples."""
    tokens: int
    """Tokens of completions learned, epochs counted."""
    steps: int
    seconds: float
    left_out: int = 0
    """Conversations that were not learned, for they do not fit the policy."""


TrainingProgress = Callable[[int, int, float], None]
"""Called with optimiser steps made, steps in all, and the loss of the last."""


class Trainer(Protocol):
    """Fine-tunes in a process of its own."""

    async def train(self, work: TrainingWork, on_progress: TrainingProgress) -> TrainingReport:
        """Fine-tune; if cancelled, the process is killed before this returns.

        Where `work.out` holds a finished fine-tuning, its report is returned.

        Raises:
            SteerwardError: Why it failed.
        """
        ...


class Publisher(Protocol):
    """Lets requests be answered by new weights."""

    async def publish(self, folder: Path, kind: Literal["full", "lora"]) -> str:
        """Serve weights or an adapter from now on, and return their version.

        Raises:
            SteerwardError: If they are refused; the old ones go on being served.
        """
        ...
