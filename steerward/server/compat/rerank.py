"""``POST /rerank``: text-embeddings-inference's shape, and the one of Cohere, Jina and vLLM.

Which of the two a body is in, its key tells: the former says `texts`, the latter `documents`.
The query is the prompt and each text a candidate, so that the prompt is computed once.
"""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Self

from fastapi import Request
from pydantic import BeforeValidator, Field, model_validator
from starlette.responses import Response

from steerward.protocol.errors import InputTooLong
from steerward.protocol.sampling import Unsupported
from steerward.protocol.wire import AnswerModel, RequestModel
from steerward.server.compat.activation import sigmoids
from steerward.server.compat.options import read_options
from steerward.server.compat.routing import compat_router, serve_at
from steerward.server.compat.scoring import CompatScores, score_items
from steerward.server.compat.turns import compared
from steerward.server.responses import json_response

router = compat_router()


class Document(RequestModel):
    """A document as an object."""

    text: str


def _text(value: object) -> object:
    return Document.model_validate(value).text if isinstance(value, dict) else value


_Text = Annotated[str, BeforeValidator(_text, json_schema_input_type=str | Document)]


class RerankRequest(RequestModel):
    """Body of ``POST /rerank``."""

    query: str
    """The user's turn, taken as it is."""
    texts: list[str] | None = Field(default=None, min_length=1, fail_fast=True)
    """Answers to it, which are answered in text-embeddings-inference's shape."""
    documents: list[_Text] | None = Field(default=None, min_length=1, fail_fast=True)
    """The same in Cohere's words, which are answered in its shape."""
    model: str | None = None
    """Name or source of a reward model, unless the URL names one."""
    top_n: Annotated[int, Field(ge=1)] | None = None
    """With `documents`: how many of the best to return. Default: all."""
    return_documents: bool | None = None
    """With `documents`: return each with its score."""
    return_text: bool | None = None
    """With `texts`: the same."""
    raw_scores: bool | None = None
    """With `texts`: false puts each number through a sigmoid; without it they are raw."""
    truncate: bool | None = None
    """Without effect: nothing is ever cut, and what is too long is refused."""
    truncation_direction: str | None = None
    """Not read."""
    user: str | None = None
    """Not read."""
    max_chunks_per_doc: Unsupported = None
    max_tokens_per_doc: Unsupported = None
    rank_fields: Unsupported = None
    truncate_prompt_tokens: Unsupported = None

    @model_validator(mode="after")
    def _has_one_meaning(self) -> Self:
        if (self.texts is None) == (self.documents is None):
            raise ValueError("give either texts (text-embeddings-inference) or documents (Cohere)")
        others = (
            ("top_n", "return_documents")
            if self.texts is not None
            else ("return_text", "raw_scores")
        )
        for name in others:
            if getattr(self, name) is not None:
                other = "documents" if self.texts is not None else "texts"
                raise ValueError(f"{name} goes with {other}; leave it out")
        return self

    @property
    def candidates(self) -> list[str]:
        """The answers, by whichever name."""
        return self.texts or self.documents or []


class Rank(AnswerModel):
    """A text and its number."""

    index: int
    """In the request."""
    score: float
    text: str | None = None


class Result(AnswerModel):
    """A document and its number."""

    index: int
    """In the request."""
    relevance_score: float
    document: Document | None = None


class RerankAnswer(AnswerModel):
    """Answer of ``POST /rerank`` to `documents`."""

    id: str
    model: str
    results: list[Result]
    """The best first."""
    usage: dict[str, int]


@serve_at(router, "/rerank", protocols=("tei", "vllm"), answer=list[Rank] | RerankAnswer)
@serve_at(router, "/v1/rerank", protocols=("cohere",), answer=list[Rank] | RerankAnswer)
@serve_at(router, "/v2/rerank", protocols=("cohere",), answer=list[Rank] | RerankAnswer)
async def rerank(body: RerankRequest, request: Request) -> Response:
    """Score answers to one query, and return them by their scores, the best first.

    Scores are raw. The sort is stable: of equal ones, the one that was sent first comes first.
    """
    options = read_options(request)
    place = "documents" if body.texts is None else "texts"
    item = compared(request, body.query, body.candidates, place="query")
    try:
        scores = await score_items(request, options, [item], place=place, named_model=body.model)
    except InputTooLong as error:
        if not body.truncate:
            raise
        raise InputTooLong(
            f"{error.message}; nothing is cut here, whatever truncate says: cut it before you "
            "send it",
            param=error.param,
        ) from None
    answer: Any = _ranks(body, scores) if body.texts is not None else _results(body, scores)
    return json_response(answer, headers=scores.headers)


def _order(scores: CompatScores) -> list[int]:
    values = scores.values
    return sorted(range(len(values)), key=lambda i: -values[i])


def _ranks(body: RerankRequest, scores: CompatScores) -> list[dict[str, Any]]:
    values = scores.values if body.raw_scores is not False else sigmoids(scores.values)
    texts = body.candidates
    return [
        {"index": i, "score": values[i], **({"text": texts[i]} if body.return_text else {})}
        for i in _order(scores)
    ]


def _results(body: RerankRequest, scores: CompatScores) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    for i in _order(scores)[: body.top_n]:
        found: dict[str, Any] = {"index": i, "relevance_score": scores.values[i]}
        if body.return_documents:
            found["document"] = {"text": body.candidates[i]}
        results.append(found)
    return {
        "id": f"rerank-{uuid.uuid4().hex}",
        "model": scores.model,
        "results": results,
        "usage": {"prompt_tokens": scores.total_tokens, "total_tokens": scores.total_tokens},
    }
