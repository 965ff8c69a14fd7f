"""``POST /v1/embeddings``: verl's reward loop with SGLang, which reads the last number."""

from __future__ import annotations

import base64
import struct
from typing import Literal

from fastapi import Request
from starlette.responses import Response

from steerward.protocol.errors import InvalidRequest
from steerward.protocol.wire import AnswerModel, RequestModel
from steerward.server.compat.routing import compat_router, serve_at
from steerward.server.compat.texts import Texts, as_list, score_texts
from steerward.server.responses import json_response

router = compat_router()


class EmbeddingsRequest(RequestModel):
    """Body of ``POST /v1/embeddings``."""

    model: str | None = None
    """Name or source of a reward model, unless the URL names one."""
    input: Texts
    """Prompt and answer of each sample, joined, in the markup of a chat template."""
    encoding_format: Literal["float", "base64"] | None = None
    """Numbers as JSON, the default, or as the bytes of 32-bit floats, little end first."""
    user: str | None = None
    """Not read."""


class EmbeddingData(AnswerModel):
    """The numbers of one text."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str
    """The raw reward of each objective, then the number that the URL asks for."""


class EmbeddingsUsage(AnswerModel):
    """Tokens of the texts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(AnswerModel):
    """Answer of ``POST /v1/embeddings``."""

    object: Literal["list"] = "list"
    data: list[EmbeddingData]
    labels: list[str]
    """What each number of an embedding is."""
    model: str
    usage: EmbeddingsUsage


@serve_at(router, "/v1/embeddings", protocols=("sglang",), answer=EmbeddingsAnswer)
async def embed(body: EmbeddingsRequest, request: Request) -> Response:
    """Score texts in the shape of an embedding: objectives first, the score last, not normalised.

    verl's reward loop reads the last number of it.
    """
    scores = await score_texts(request, as_list(body.input), place="input", named_model=body.model)
    as_bytes = body.encoding_format == "base64"
    answer = {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": i,
                "embedding": _packed(vector) if as_bytes else vector,
            }
            for i, vector in enumerate(scores.vectors)
        ],
        "labels": scores.labels,
        "model": scores.model,
        "usage": {"prompt_tokens": scores.total_tokens, "total_tokens": scores.total_tokens},
    }
    return json_response(answer, headers=scores.headers)


def _packed(vector: list[float]) -> str:
    try:
        packed = struct.pack(f"<{len(vector)}f", *vector)
    except OverflowError:
        raise InvalidRequest(
            "a score is beyond the largest 32-bit float, 3.4e38; scale the weights of the URL "
            "down, or ask for encoding_format float",
            param="encoding_format",
        ) from None
    return base64.b64encode(packed).decode()
