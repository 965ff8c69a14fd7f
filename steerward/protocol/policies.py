"""What clients may know of a policy."""

from __future__ import annotations

from typing import Literal

from steerward.protocol.conditioning import ConditioningRule
from steerward.protocol.wire import AnswerModel

Steering = Literal["auto", "prompt", "best_of", "neighbours"]


class PolicyCard(AnswerModel):
    """A policy's entry in ``GET /v1/models``."""

    id: str
    object: Literal["model"] = "model"
    created: int
    """Start of the server, seconds since 1970."""
    owned_by: str = "steerward"
    kind: Literal["policy"] = "policy"
    parent: str | None = None
    """Of an adapter: the policy that it adapts."""
    conditioning: ConditioningRule | None
    """How it reads a direction; None if it was not trained to."""
    steering: list[Steering] = []
    """What requests can ask for here."""
    reward_models: list[str] = []
    """Reward models of this server that rank its completions."""
    max_input_tokens: int | None
    """Longest prompt plus completion, in its tokens; None if another server has the limit."""
    weight_version: str
    dtype: str
    device: str
    """Where it runs; of a remote one, its address."""
    num_parameters: int | None
    running: int
    """Completions that are being drawn now."""
    waiting: int
    """Completions that wait for a place."""
