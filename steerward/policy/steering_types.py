"""What steering takes and gives: requests, rewards, the parts of choices, the report."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from steerward.policy.generation import FinishReason, Prompt, Sampling, TokenLogprob
from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.policies import Steering


@dataclass(frozen=True, slots=True)
class SteeringRequest:
    """A prompt, and how its completions are to be drawn, steered and chosen."""

    prompt: Prompt
    sampling: Sampling
    deadline: float
    """`time.perf_counter()` at which it is given up."""
    n: int = 1
    """Completions to return."""
    best_of: int | None = None
    """Completions to draw, where some are chosen."""
    steering: Steering = "auto"
    direction: PreferenceDirection | None = None
    force: bool = False
    """Condition outside the trained cone too."""
    num_neighbours: int = 5
    neighbour_deg: float = 30.0
    variant: str | None = None
    """Of the policy; None: the policy itself."""
    with_rewards: bool = True
    """Score the completions even where nothing is chosen by it."""


@dataclass(frozen=True, slots=True)
class Reward:
    """What the reward model says of one completion."""

    score: float | None
    direction_score: float | None
    rewards: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Ranking:
    """The rewards of completions of one prompt, in their order."""

    rewards: Sequence[Reward]
    weight_version: str
    direction_scale: str | None


class RewardSource(Protocol):
    """A reward model, as far as steering needs it."""

    @property
    def name(self) -> str:
        """Under which it is served."""
        ...

    @property
    def objectives(self) -> Sequence[str]:
        """Names that a direction may use."""
        ...

    async def rank(
        self,
        messages: Sequence[Mapping[str, str]],
        completions: Sequence[str],
        *,
        direction: PreferenceDirection | None,
        deadline: float,
    ) -> Ranking:
        """Score completions of one prompt side by side; the prompt is computed once.

        Raises:
            SteerwardError: Why there are no scores.
        """
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """Something new of one returned choice; its last part has finish reason and reward."""

    index: int
    text: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    reward: Reward | None = None


@dataclass(frozen=True, slots=True)
class SteeringReport:
    """What was done to steer; answers tell it."""

    mode: Steering
    """prompt, best_of or neighbours; of `auto`, what it came to. Plain generation is `prompt`
    without a mechanism."""
    mechanisms: tuple[str, ...]
    """conditioning, selection: those that acted."""
    direction: Mapping[str, float] | None
    """As used, of norm 1."""
    rule: str | None
    system: str | None
    """Of conditioning: the rule's name, and the system turn that the policy read for the direction;
    no turn where only neighbours of the direction were drawn."""
    samples: int
    """Completions drawn."""
    reward_model: str | None
    warnings: tuple[str, ...]
    neighbours: tuple[Mapping[str, float], ...] = ()
    """Of neighbours: the direction that each sample was conditioned on."""


class SteeredGeneration(Protocol):
    """What `SteeredPolicy.begin` returns: iterate over the parts, then read the totals."""

    report: SteeringReport
    weight_version: str
    system_fingerprint: str

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the distinct prompts; may be known only at the end."""
        ...

    @property
    def completion_tokens(self) -> int:
        """Tokens drawn so far, of all samples, chosen or not."""
        ...

    @property
    def ranking(self) -> Ranking | None:
        """After the end: of the samples that were scored."""
        ...

    def __aiter__(self) -> AsyncIterator[Part]:
        """Yield what is returned, as soon as it is known to be.

        Raises:
            SteerwardError: Why there is no more: of the policy, or of the reward model.
        """
        ...

    async def aclose(self) -> None:
        """Give up what is not done, generation or scoring. May be called twice."""
        ...
