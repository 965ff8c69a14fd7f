"""``POST /v1/score/evaluation``: the reward model of LLaMA-Factory's PPO."""

from __future__ import annotations

import uuid
from typing import Any, Literal

from fastapi import Request
from pydantic import Field
from starlette.responses import Response

from steerward.protocol.wire import AnswerModel, RequestModel
from steerward.server.compat.routing import compat_router, serve_at
from steerward.server.compat.texts import Texts, as_list, score_texts
from steerward.server.responses import json_response

router = compat_router()


class EvaluationRequest(RequestModel):
    """Body of ``POST /v1/score/evaluation``."""

    model: Any = None
    """Not read, since LLaMA-Factory always sends the same word; the URL names the model."""
    messages: Texts
    """Prompt and answer of each sample, joined, with the policy's template and tokens."""
    max_length: int | None = Field(default=None, ge=1)
    """Not read: texts are never cut, and refused where they are too long for the model."""


class EvaluationAnswer(AnswerModel):
    """Answer of ``POST /v1/score/evaluation``."""

    id: str
    object: Literal["score.evaluation"] = "score.evaluation"
    model: str
    """The reward model that scored."""
    scores: list[float]
    """Of each text: the number that the URL asks for."""


@serve_at(router, "/v1/score/evaluation", protocols=("llama-factory",), answer=EvaluationAnswer)
async def evaluate(body: EvaluationRequest, request: Request) -> Response:
    """Score samples of LLaMA-Factory: set `reward_model_type: api` and `reward_model` to this.

    Padding and special tokens of the policy's template are taken off, and the turns are written
    again in the reward model's own.
    """
    scores = await score_texts(request, as_list(body.messages), place="messages")
    answer = {
        "id": f"score-{uuid.uuid4().hex}",
        "object": "score.evaluation",
        "model": scores.model,
        "scores": scores.values,
    }
    return json_response(answer, headers=scores.headers)
