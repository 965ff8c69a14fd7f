"""What answers with completions have in common: rewards, what was done to steer, tokens."""

from __future__ import annotations

from typing import Literal

from steerward.protocol.policies import Steering
from steerward.protocol.wire import AnswerModel

FinishReason = Literal["stop", "length"]


class ChoiceReward(AnswerModel):
    """What the reward model says of one completion."""

    score: float | None
    """The checkpoint's own score; None if it has several objectives and no gate."""
    direction_score: float | None
    """Dot product of the direction, where there is one, with the rewards."""
    rewards: dict[str, float]
    """Raw head outputs by objective."""


class SteeringUsed(AnswerModel):
    """What was done to steer, and with what."""

    mode: Steering
    """prompt, best_of or neighbours; of `auto`, what it came to."""
    mechanisms: list[str]
    """conditioning, selection: those that acted."""
    direction: dict[str, float] | None
    """As used, of norm 1."""
    rule: str | None
    """How it was told to the policy: the rule's name."""
    system: str | None
    """The system turn that told it."""
    samples: int
    """Completions that were drawn."""
    reward_model: str | None
    """That scored them."""
    reward_weight_version: str | None
    """Identity of its weights; known when the completions are scored."""
    direction_scale: Literal["standardised", "raw"] | None
    """Whether rewards were standardised before the dot product with the direction; known when the
    completions are scored."""
    warnings: list[str]
    """What the direction asks of the policy that it was not trained on."""


class PromptTokensDetails(AnswerModel):
    """Where tokens of prompts came from."""

    cached_tokens: int
    """That the server had kept from earlier requests."""


class CompletionUsage(AnswerModel):
    """Tokens of one request."""

    prompt_tokens: int
    """Of the distinct prompts: once, however many completions go on from it."""
    completion_tokens: int
    """Of all completions that were drawn, chosen or not."""
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
