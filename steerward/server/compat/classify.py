"""``POST /classify``: vLLM's shape, which verl's reward loop reads, and SGLang's.

Which of the two a body is in, its key tells: vLLM says `input`, SGLang `text`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any, Literal, Self

from fastapi import Request
from pydantic import model_validator
from starlette.responses import Response

from steerward.protocol.wire import AnswerModel, RequestModel
from steerward.server.compat.activation import sigmoids
from steerward.server.compat.routing import compat_router, serve_at
from steerward.server.compat.scoring import CompatScores
from steerward.server.compat.texts import Texts, as_list, score_texts
from steerward.server.responses import json_response

router = compat_router()


class ClassifyRequest(RequestModel):
    """Body of ``POST /classify``."""

    model: str | None = None
    """Name or source of a reward model, unless the URL names one."""
    input: Texts | None = None
    """Prompt and answer of each sample, joined, in the markup of a chat template."""
    text: Texts | None = None
    """The same in SGLang's words, which are answered in SGLang's shape."""
    use_activation: bool | None = None
    """Put each number through a sigmoid; without it they are raw."""
    activation: bool | None = None
    """Older name of `use_activation`."""
    add_special_tokens: bool | None = None
    """Not read: texts are written again by the reward model's template, with one BOS."""
    user: str | None = None
    """Not read."""
    request_id: str | None = None
    """Not read; the header `x-request-id` is."""

    @model_validator(mode="after")
    def _has_one_meaning(self) -> Self:
        if (self.input is None) == (self.text is None):
            raise ValueError("give either input (as vLLM) or text (as SGLang)")
        if self.text is not None and self.is_activated:
            raise ValueError("use_activation goes with input; numbers of text are always raw")
        given = {self.use_activation, self.activation} - {None}
        if len(given) > 1:
            raise ValueError("use_activation and activation differ; give use_activation only")
        return self

    @property
    def is_activated(self) -> bool:
        """Whether numbers go through a sigmoid."""
        return bool(self.use_activation or self.activation)


class ClassifyData(AnswerModel):
    """The numbers of one text."""

    index: int
    label: str
    """What the last number is."""
    probs: list[float]
    """The raw reward of each objective, then the number that the URL asks for."""
    num_classes: int


class ClassifyAnswer(AnswerModel):
    """Answer of ``POST /classify`` to `input`."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[ClassifyData]
    labels: list[str]
    """What each number of `probs` is."""
    usage: dict[str, int]


class EmbeddedText(AnswerModel):
    """Answer of ``POST /classify`` to one `text`; a list of them answers a list."""

    embedding: list[float]
    """The raw reward of each objective, then the number that the URL asks for."""
    meta_info: dict[str, Any]


@serve_at(
    router,
    "/classify",
    protocols=("vllm", "sglang"),
    answer=ClassifyAnswer | EmbeddedText | list[EmbeddedText],
)
async def classify(body: ClassifyRequest, request: Request) -> Response:
    """Score texts in the shape of a classifier: objectives first, the score last.

    verl's reward loop reads the last number of it. Numbers are raw, never a softmax.
    """
    if body.text is not None:
        texts = as_list(body.text)
        scores = await score_texts(request, texts, place="text", named_model=body.model)
        embedded = _in_shape_of_sglang(scores)
        answer: Any = embedded[0] if isinstance(body.text, str) else embedded
    else:
        assert body.input is not None
        texts = as_list(body.input)
        scores = await score_texts(request, texts, place="input", named_model=body.model)
        answer = _in_shape_of_vllm(scores, is_activated=body.is_activated)
    return json_response(answer, headers=scores.headers)


def _in_shape_of_vllm(scores: CompatScores, *, is_activated: bool) -> dict[str, Any]:
    labels = scores.labels
    vectors = scores.vectors
    if is_activated:
        vectors = [sigmoids(vector) for vector in vectors]
    return {
        "id": f"classify-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": scores.model,
        "data": [
            {"index": i, "label": labels[-1], "probs": vector, "num_classes": len(labels)}
            for i, vector in enumerate(vectors)
        ],
        "labels": labels,
        "usage": {
            "prompt_tokens": scores.total_tokens,
            "completion_tokens": 0,
            "total_tokens": scores.total_tokens,
        },
    }


def _in_shape_of_sglang(scores: CompatScores) -> Sequence[dict[str, Any]]:
    return [
        {
            "embedding": vector,
            "meta_info": {"labels": scores.labels, "candidate_tokens": candidate.tokens},
        }
        for vector, candidate in zip(scores.vectors, scores.candidates, strict=True)
    ]
