"""What a policy takes and gives, wherever it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from steerward.protocol.conditioning import ConditioningRule
from steerward.protocol.policies import PolicyCard

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn. None is the policy's own default."""

    max_tokens: int | None = None
    """Most tokens of a completion; refused if the policy's length limit does not leave them."""
    default_max_tokens: int | None = None
    """Most tokens where `max_tokens` is None, or what the length limit leaves if that is less."""
    temperature: float | None = None
    """0 takes the likeliest token always."""
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    """Texts that end a completion; they are not part of it."""
    seed: int | None = None
    """Sample i of a request draws from a stream of its own that depends on this and i."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    top_logprobs: int | None = None
    """Alternatives to report for each token; None: no log-probabilities at all."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a completion goes on from: messages, or plain text that no template touches."""

    messages: tuple[Mapping[str, str], ...] = ()
    text: str | None = None


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """Completions to draw together: sample i goes on from prompts[i]. Equal prompts are shared."""

    prompts: Sequence[Prompt]
    sampling: Sampling
    deadline: float
    """`time.perf_counter()` at which it is given up."""
    variant: str | None = None
    """Name of one of the policy's variants; None: the policy itself."""


@dataclass(frozen=True, slots=True)
class TokenChoice:
    """A token and its log-probability, before temperature and top_p; natural logarithm."""

    token: str
    logprob: float
    bytes: bytes


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token that was drawn, with the likeliest ones in its place."""

    chosen: TokenChoice
    top: tuple[TokenChoice, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """Something new of one sample. Its last piece, and no other, has a finish reason."""

    index: int
    """Of the sample."""
    text: str = ""
    """May be empty: a token may be half a character, or the beginning of a stop text."""
    num_tokens: int = 0
    """Tokens drawn for this piece, the closing one among them."""
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None


class Generation(Protocol):
    """Completions on their way: iterate over the pieces, and close it, however it ends."""

    weight_version: str
    """Identity of the weights that draw them."""
    system_fingerprint: str
    """Changes with whatever may change the answer to one seed."""

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the distinct prompts; may be known only at the end."""
        ...

    def __aiter__(self) -> AsyncIterator[Piece]:
        """Yield pieces of all samples as they come.

        Raises:
            SteerwardError: Why there are no more: `DeadlineExceeded`, `EngineFailure` ...
        """
        ...

    async def aclose(self) -> None:
        """Give up what is not done; its place is free at once. May be called twice."""
        ...


class Policy(Protocol):
    """A policy under its name, in this process or on another machine."""

    @property
    def name(self) -> str:
        """Under which it is served."""
        ...

    @property
    def variants(self) -> Sequence[str]:
        """Names of what is served beside the policy itself, as models of their own.

        A variant is an adapter, or a whole set of weights of the same shape.
        """
        ...

    @property
    def rule(self) -> ConditioningRule | None:
        """How it reads a direction; None if it does not."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken."""
        ...

    @property
    def reason(self) -> str:
        """Why requests are not taken; empty if they are."""
        ...

    def card(self, variant: str | None = None) -> PolicyCard:
        """Return what clients may know of it, or of one of its variants.

        Raises:
            NotFound: If there is no such variant.
        """
        ...

    def start(self) -> None:
        """Start to warm up."""
        ...

    async def wait_until_ready(self) -> None:
        """Return when it is warm.

        Raises:
            NotReady: If it cannot be.
        """
        ...

    async def begin(self, request: GenerationRequest) -> Generation:
        """Check, admit and start a request.

        Raises:
            SteerwardError: `InputTooLong`, `Overloaded`, `NotReady`, `NotFound` ...: all that can
                be known before the first token.
        """
        ...

    def begin_drain(self) -> None:
        """Take no more requests; those in flight are finished."""
        ...

    def close(self) -> None:
        """End what still runs with `NotReady` and stop all threads."""
        ...
