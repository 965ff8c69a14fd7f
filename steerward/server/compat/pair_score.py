"""``POST /score``: vLLM's scores of pairs, and SGLang's of items behind a query.

Which of the two a body is in, its key tells: SGLang says `items`. Our own `POST /v1/score` has
items too, and is another route. The first of a pair is the prompt, the second the candidate.
"""

from __future__ import annotations

import time
import uuid
from typing import Any, Literal, Self

from fastapi import Request
from pydantic import model_validator
from starlette.responses import Response

from steerward.protocol.items import ScoreItem
from steerward.protocol.sampling import Unsupported
from steerward.protocol.wire import AnswerModel, RequestModel
from steerward.server.compat.activation import sigmoids
from steerward.server.compat.options import read_options
from steerward.server.compat.routing import compat_router, serve_at
from steerward.server.compat.scoring import CompatScores, score_items
from steerward.server.compat.texts import Texts, as_list
from steerward.server.compat.turns import compared
from steerward.server.responses import json_response

router = compat_router()

_FIRST = ("text_1", "queries", "data_1")
_SECOND = ("text_2", "documents", "data_2")


class PairScoreRequest(RequestModel):
    """Body of ``POST /score``."""

    model: str | None = None
    """Name or source of a reward model, unless the URL names one."""
    text_1: Texts | None = None
    """Prompts: one for all candidates, or one for each."""
    text_2: Texts | None = None
    """Candidates."""
    queries: Texts | None = None
    """Newer name of `text_1`."""
    documents: Texts | None = None
    """Newer name of `text_2`."""
    data_1: Texts | None = None
    """Another name of `text_1`."""
    data_2: Texts | None = None
    """Another name of `text_2`."""
    query: str | None = None
    """The prompt in SGLang's words, which are answered in SGLang's shape."""
    items: Texts | None = None
    """Candidates of `query`."""
    use_activation: bool | None = None
    """Put each number of vLLM's shape through a sigmoid; without it they are raw."""
    activation: bool | None = None
    """Older name of `use_activation`."""
    user: str | None = None
    """Not read."""
    request_id: str | None = None
    """Not read; the header `x-request-id` is."""
    apply_softmax: Unsupported = None
    item_first: Unsupported = None
    label_token_ids: Unsupported = None
    truncate_prompt_tokens: Unsupported = None

    @model_validator(mode="after")
    def _has_one_meaning(self) -> Self:
        given = {name for name in (*_FIRST, *_SECOND) if getattr(self, name) is not None}
        if self.items is not None or self.query is not None:
            if given or self.items is None or self.query is None or self.is_activated:
                raise ValueError("query and items go together, and with nothing of vLLM's")
            return self
        if len(given & set(_FIRST)) != 1 or len(given & set(_SECOND)) != 1:
            raise ValueError("give text_1 and text_2, or queries and documents, or query and items")
        first, second = len(self.prompts), len(self.candidates)
        if first not in (1, second):
            raise ValueError(
                f"there are {first} prompts for {second} candidates; send one for all, or one for "
                "each in the same order"
            )
        return self

    @property
    def prompts(self) -> list[str]:
        """Prompts, by whichever name."""
        return _first_given(self.query, self.text_1, self.queries, self.data_1)

    @property
    def candidates(self) -> list[str]:
        """Candidates, by whichever name."""
        return _first_given(self.items, self.text_2, self.documents, self.data_2)

    @property
    def is_activated(self) -> bool:
        """Whether numbers go through a sigmoid."""
        return bool(self.use_activation or self.activation)


def _first_given(*texts: str | list[str] | None) -> list[str]:
    return next((as_list(found) for found in texts if found is not None), [])


class PairScore(AnswerModel):
    """The number of one candidate."""

    index: int
    object: Literal["score"] = "score"
    score: float


class PairScores(AnswerModel):
    """Answer of ``POST /score`` to prompts and candidates."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[PairScore]
    usage: dict[str, int]


class ItemScores(AnswerModel):
    """Answer of ``POST /score`` to `query` and `items`."""

    object: Literal["scoring"] = "scoring"
    model: str
    scores: list[list[float]]
    """Of each item: the raw reward of each objective, then the number that the URL asks for."""
    labels: list[str]
    """What each number of an item is."""
    usage: dict[str, int]


@serve_at(router, "/score", protocols=("vllm", "sglang"), answer=PairScores | ItemScores)
async def score(body: PairScoreRequest, request: Request) -> Response:
    """Score candidates that answer one prompt, or one each; texts are taken as they are."""
    options = read_options(request)
    items = _items(body, request)
    scores = await score_items(request, options, items, place=_place(body), named_model=body.model)
    answer = _in_shape_of_vllm(body, scores) if body.items is None else _in_shape_of_sglang(scores)
    return json_response(answer, headers=scores.headers)


def _place(body: PairScoreRequest) -> str:
    names = ("items", *_SECOND)
    return next(name for name in names if getattr(body, name) is not None)


def _items(body: PairScoreRequest, request: Request) -> list[ScoreItem]:
    prompts, candidates = body.prompts, body.candidates
    if not candidates:
        return []
    if len(prompts) == 1:
        return [compared(request, prompts[0], candidates, place="prompt")]
    return [
        compared(request, prompt, [candidate], place=f"prompt[{i}]")
        for i, (prompt, candidate) in enumerate(zip(prompts, candidates, strict=True))
    ]


def _in_shape_of_vllm(body: PairScoreRequest, scores: CompatScores) -> dict[str, Any]:
    values = sigmoids(scores.values) if body.is_activated else scores.values
    return {
        "id": f"score-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": scores.model,
        "data": [{"index": i, "object": "score", "score": value} for i, value in enumerate(values)],
        "usage": _usage(scores),
    }


def _in_shape_of_sglang(scores: CompatScores) -> dict[str, Any]:
    return {
        "object": "scoring",
        "model": scores.model,
        "scores": scores.vectors,
        "labels": scores.labels,
        "usage": _usage(scores),
    }


def _usage(scores: CompatScores) -> dict[str, int]:
    return {"prompt_tokens": scores.total_tokens, "total_tokens": scores.total_tokens}
