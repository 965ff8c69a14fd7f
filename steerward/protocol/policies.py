"""What clients may know of a policy."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from steerward.protocol.conditioning import ConditioningRule
from steerward.protocol.wire import AnswerModel, RequestModel, Text

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
    """Of a variant: the policy that it is served beside."""
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


class LoadRequest(RequestModel):
    """Body of ``POST /v1/models``."""

    id: Annotated[Text, Field(min_length=1, max_length=256, pattern=r"^[\w.:@/-]+$")]
    """Name of what is served with the weights from now on: a reward model or a policy of this
    server, or another name, under which they are served beside a policy."""
    parent: Text | None = None
    """Policy that they are weights or an adapter of; may be left out where there is only one. Not
    for a reward model, nor for a policy itself."""
    path: Annotated[Text, Field(min_length=1, max_length=4096)]
    """Folder on the server's machine: for a reward model, a checkpoint with the same objectives,
    kind of gate and tokenizer; for a policy, one of the same shape, or beside it a LoRA
    adapter."""
