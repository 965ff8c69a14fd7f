"""What is being drawn: completions, the prompts they share, the requests they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from steerward.policy.local.sampling import Draw
from steerward.policy.local.text import TextStream

if TYPE_CHECKING:
    from steerward.policy.local.model import Weights


@dataclass(eq=False, slots=True)
class Job:
    """A request, as the device thread sees it.

    Args:
        weights: That draw all of it, whatever is swapped in meanwhile.
    """

    weights: Weights


@dataclass(eq=False, slots=True)
class SharedPrompt:
    """A prompt whose keys and values are computed once, for all its samples.

    Args:
        job: Request.
        ids: The prompt; of a sample that had to make room, with what it had drawn.
        waiting: Samples that have no place yet.
    """

    job: Job
    ids: list[int]
    waiting: list[Sample]
    table: list[int] = field(default_factory=list[int])
    """Blocks that hold its keys and values."""
    computed: int = 0
    """Tokens that are in the cache."""
    logits_V: Tensor | None = None
    """Of its last token; what each sample begins with."""


@dataclass(eq=False, slots=True)
class Sample:
    """One completion.

    Args:
        job: Request.
        index: In the request.
        draw: How its tokens are drawn.
        text: What they spell.
        max_tokens: Most of them.
        end_tokens: Those that end it.
    """

    job: Job
    index: int
    draw: Draw
    text: TextStream
    max_tokens: int
    end_tokens: frozenset[int]
    tokens: list[int] = field(default_factory=list[int])
    """Drawn; the last of them is not in the cache yet."""
    prompt_ids: Sequence[int] = ()
    table: list[int] = field(default_factory=list[int])

    @property
    def length(self) -> int:
        """Tokens of prompt and completion."""
        return len(self.prompt_ids) + len(self.tokens)
