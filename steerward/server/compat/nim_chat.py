"""``POST /v1/chat/completions`` with the name of a reward model: NVIDIA NIM's reward models.

OpenAI's client, CAMEL and older NeMo Curator send a conversation that ends with the assistant's
turn, and read the named rewards as the log-probabilities of an answer.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import replace
from typing import Any, Literal

from fastapi import Request
from starlette.responses import Response

from steerward.protocol.chat import AssistantMessage, ChatCompletionRequest, ChoiceLogprobs
from steerward.protocol.conversations import conversation
from steerward.protocol.errors import InvalidRequest
from steerward.protocol.steered import ChoiceReward, CompletionUsage
from steerward.protocol.wire import AnswerModel
from steerward.server.compat.options import CompatOptions, read_options
from steerward.server.compat.routing import ClientGone, compat_router, serve_at
from steerward.server.compat.scoring import CompatScores, score_items
from steerward.server.compat.turns import messages_of
from steerward.server.disconnect import gone
from steerward.server.generation import wanted_direction
from steerward.server.responses import json_response
from steerward.server.state import state_of

router = compat_router()

# What does not change a score, and what a reward model answers anyway.
_TAKEN = {
    *("model", "messages", "direction", "logprobs", "top_logprobs"),
    *("user", "safety_identifier", "metadata"),
}


class ScoredChoice(AnswerModel):
    """The turn that was scored."""

    index: int
    message: AssistantMessage
    """Its text is `reward:` and the number that the URL or the body asks for."""
    logprobs: ChoiceLogprobs
    """Each objective as a token, and its raw reward as the token's log-probability."""
    finish_reason: Literal["stop"]
    reward: ChoiceReward


class ScoredChat(AnswerModel):
    """Answer of ``POST /v1/chat/completions`` for a reward model."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    """Seconds since 1970."""
    model: str
    choices: list[ScoredChoice]
    usage: CompletionUsage
    system_fingerprint: str
    """Version of the weights."""


@serve_at(router, "/v1/chat/completions", protocols=("nim",), answer=ScoredChat, is_bare=False)
async def chat(body: ChatCompletionRequest, request: Request) -> Response:
    """Score a conversation that ends with the assistant's turn, with OpenAI's client.

    For clients whose only setting is their base URL: `http://host:8000/p/concise/v1`, or
    `http://host:8000/compat/nim/v1`. `POST /v1/chat/completions` does the same if `model` is a
    reward model. The text is `reward:NUMBER`, and `logprobs` has each objective as a token with
    its raw reward.
    """
    return await reward_completion(body, request)


async def reward_completion(body: ChatCompletionRequest, request: Request) -> Response:
    """Return the answer for a conversation that is scored, not gone on with.

    Raises:
        InvalidRequest: If it does not end with the assistant's turn, or the body says how
            completions are drawn.
        SteerwardError: As `score_items`.
    """
    _refuse_drawing(body)
    options = _options(body, request)
    item = conversation(messages_of(request, body.messages), place="messages")
    try:
        scores = await score_items(
            request, options, [item], place="messages", named_model=body.model
        )
    except ClientGone:
        return gone()
    return json_response(_completion(scores), headers=scores.headers)


def _refuse_drawing(body: ChatCompletionRequest) -> None:
    """Let a body pass that asks for what a reward model has."""
    fields = type(body).model_fields
    for name in sorted(body.model_fields_set - _TAKEN):
        value = getattr(body, name)
        # By identity: 0 equals False, and asks for something.
        asks = value is not None and value is not False and value != fields[name].default
        if asks and (name, value) != ("n", 1):
            raise InvalidRequest(
                f"{name} says how completions are drawn, and {body.model!r} is a reward model, "
                "which scores the last turn and draws none; leave it out",
                param=name,
            )


def _options(body: ChatCompletionRequest, request: Request) -> CompatOptions:
    options = read_options(request)
    direction = wanted_direction(body, state_of(request).config.profiles, None)
    if direction is None:
        return options
    if options.score_kind != "score":
        raise InvalidRequest(
            "both the URL and the body say how objectives are weighed; leave one out",
            param="direction",
        )
    return replace(options, direction=dict(direction.components))


def _completion(scores: CompatScores) -> dict[str, Any]:
    (candidate,) = scores.candidates
    is_directed = scores.kind == "direction_score"
    rewards = [
        {"token": name, "logprob": value, "bytes": None, "top_logprobs": []}
        for name, value in candidate.rewards.items()
    ]
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": scores.model,
        "system_fingerprint": scores.headers["x-weight-version"],
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": f"reward:{candidate.value}",
                    "refusal": None,
                },
                "logprobs": {"content": rewards, "refusal": None},
                "finish_reason": "stop",
                "reward": {
                    "score": candidate.score,
                    "direction_score": candidate.value if is_directed else None,
                    "rewards": candidate.rewards,
                },
            }
        ],
        "usage": {
            "prompt_tokens": scores.total_tokens,
            "completion_tokens": 0,
            "total_tokens": scores.total_tokens,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }
