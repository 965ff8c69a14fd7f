"""``POST /pooling``: vLLM's reward models; objectives first, the score last."""

from __future__ import annotations

import time
import uuid
from typing import Any, Literal, Self

from fastapi import Request
from pydantic import Field, model_validator
from starlette.responses import Response

from steerward.protocol.conversations import conversation
from steerward.protocol.sampling import Unsupported
from steerward.protocol.wire import AnswerModel, RequestModel
from steerward.server.compat.activation import sigmoids
from steerward.server.compat.options import read_options
from steerward.server.compat.routing import compat_router, serve_at
from steerward.server.compat.scoring import CompatScores, score_items
from steerward.server.compat.texts import Texts, as_list, score_texts
from steerward.server.compat.turns import Turn, messages_of
from steerward.server.responses import json_response

router = compat_router()


class PoolingRequest(RequestModel):
    """Body of ``POST /pooling``."""

    model: str | None = None
    """Name or source of a reward model, unless the URL names one."""
    input: Texts | None = None
    """Prompt and answer of each sample, joined, in the markup of a chat template."""
    messages: list[Turn] | None = Field(default=None, min_length=1, fail_fast=True)
    """A conversation that ends with the assistant's turn."""
    use_activation: bool | None = None
    """Put each number through a sigmoid; without it they are raw."""
    activation: bool | None = None
    """Older name of `use_activation`."""
    task: Literal["classify"] | None = None
    """Without effect: there is one way to read the model."""
    encoding_format: Literal["float"] | None = None
    """Without effect: numbers are JSON always."""
    add_special_tokens: bool | None = None
    """Not read: texts are written again by the reward model's template, with one BOS."""
    user: str | None = None
    """Not read."""
    request_id: str | None = None
    """Not read; the header `x-request-id` is."""
    add_generation_prompt: Unsupported = None
    chat_template: Unsupported = None
    chat_template_kwargs: Unsupported = None
    continue_final_message: Unsupported = None
    dimensions: Unsupported = None
    truncate_prompt_tokens: Unsupported = None

    @model_validator(mode="after")
    def _has_one_meaning(self) -> Self:
        if (self.input is None) == (self.messages is None):
            raise ValueError("give either input or messages")
        if len({self.use_activation, self.activation} - {None}) > 1:
            raise ValueError("use_activation and activation differ; give use_activation only")
        return self

    @property
    def is_activated(self) -> bool:
        """Whether numbers go through a sigmoid."""
        return bool(self.use_activation or self.activation)


class PoolingData(AnswerModel):
    """The numbers of one sample."""

    index: int
    object: Literal["pooling"] = "pooling"
    data: list[float]
    """The raw reward of each objective, then the number that the URL asks for."""


class PoolingAnswer(AnswerModel):
    """Answer of ``POST /pooling``."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[PoolingData]
    labels: list[str]
    """What each number of `data` is."""
    usage: dict[str, int]


@serve_at(router, "/pooling", protocols=("vllm",), answer=PoolingAnswer)
async def pooling(body: PoolingRequest, request: Request) -> Response:
    """Score texts or a conversation in the shape of a pooled vector: the score is its last number.

    Numbers are raw and not normalised.
    """
    scores = await _scores(body, request)
    vectors = [sigmoids(row) if body.is_activated else row for row in scores.vectors]
    answer: dict[str, Any] = {
        "id": f"pool-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": scores.model,
        "data": [
            {"index": i, "object": "pooling", "data": vector} for i, vector in enumerate(vectors)
        ],
        "labels": scores.labels,
        "usage": {
            "prompt_tokens": scores.total_tokens,
            "completion_tokens": 0,
            "total_tokens": scores.total_tokens,
        },
    }
    return json_response(answer, headers=scores.headers)


async def _scores(body: PoolingRequest, request: Request) -> CompatScores:
    if body.input is not None:
        return await score_texts(
            request, as_list(body.input), place="input", named_model=body.model
        )
    options = read_options(request)
    item = conversation(messages_of(request, body.messages or []), place="messages")
    return await score_items(request, options, [item], place="messages", named_model=body.model)
