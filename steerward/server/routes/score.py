"""``POST /v1/score`` and ``POST /v1/tokenize``: the native scoring routes."""

from __future__ import annotations

import math
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from steerward.protocol.arrays import MEDIA_TYPE
from steerward.protocol.scoring import ScoreRequest, ScoreResponse
from steerward.protocol.tokenization import TokenizeRequest, TokenizeResponse
from steerward.server.auth import KeyedRoute
from steerward.server.disconnect import gone, unless_disconnected
from steerward.server.documentation import error_answers
from steerward.server.idempotency import answered_once
from steerward.server.responses import json_response, prefers
from steerward.server.state import state_of

router = APIRouter(tags=["scoring"], route_class=KeyedRoute)

_IN_ARRAYS: dict[str, Any] = {
    "content": {MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}
}


@router.post(
    "/v1/score",
    response_model=ScoreResponse,
    responses={200: _IN_ARRAYS, **error_answers(401, 404, 413, 422, 429, 500, 503, 504)},
)
async def score(body: ScoreRequest, request: Request) -> Response:
    """Score candidates, with the reasons if `explain` is set.

    `score` is the checkpoint's own score, comparable between candidates of one prompt. The same
    rewards can be read by `weights` or by one or many `directions` at no further cost.

    With `Accept: application/vnd.safetensors` the answer is one safetensors file. Its rows are
    the candidates of all items in request order: `item` (N) int64 is the index of the item each
    belongs to, `tokens` (N) int64, `rewards` (N, K) float32, and where there are any `scores` (N)
    float32, `weighted_scores` (N) float64, `direction_scores` (N, V) float64, with `explain` also
    `gates` and `coefficients` (N, K) float32. The metadata has one key, `summary`: a JSON object
    with `objectives`, the names of the K columns, and what the JSON answer says beside its items.
    Errors are JSON always.

    With the header `Idempotency-Key` the same request, sent again within ten minutes, is answered
    with the first one's answer and not scored again.
    """
    state = state_of(request)
    engine = state.engine(body.model)
    in_arrays = prefers(request, MEDIA_TYPE)

    async def answer() -> Response:
        timeout_s = min(body.timeout_s or math.inf, state.config.request_timeout_s)
        async with state.pause.running(timeout_s) as left_s:
            scored = await engine.score(body.model_copy(update={"timeout_s": left_s}))
        headers = {f"x-{stage}-ms": f"{s * 1e3:.2f}" for stage, s in scored.stages.items()}
        headers["x-weight-version"] = scored.weight_version
        if in_arrays:
            content = scored.arrays.to_safetensors()
            return Response(content, headers=headers, media_type=MEDIA_TYPE)
        return json_response(scored.answer, headers=headers)

    answering = answered_once(
        request,
        answer,
        store=state.answers,
        metrics=state.metrics,
        variant=MEDIA_TYPE if in_arrays else "",
    )
    return await unless_disconnected(answering, request) or gone()


@router.post(
    "/v1/tokenize",
    response_model=TokenizeResponse,
    response_model_exclude_none=True,
    responses=error_answers(401, 404, 413, 422, 429, 503, 504),
)
async def tokenize(body: TokenizeRequest, request: Request) -> Response:
    """Return the token ids of prompts and candidates, in the form that `POST /v1/score` takes.

    Send `{"tokens": ...}` in place of the text from then on: the scores are the same. It is also
    the way to check ids of your own.
    """
    engine = state_of(request).engine(body.model)
    answer = await unless_disconnected(engine.tokenize(body), request)
    if answer is None:
        return gone()
    return json_response(answer, headers={"x-weight-version": answer["weight_version"]})
