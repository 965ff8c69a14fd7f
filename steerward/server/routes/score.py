"""``POST /v1/score``: the native scoring route."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from steerward.engine.served import Scored, ServedModel
from steerward.protocol.scoring import ScoreRequest, ScoreResponse
from steerward.server.auth import KeyedRoute
from steerward.server.documentation import error_answers
from steerward.server.responses import json_response
from steerward.server.state import state_of

router = APIRouter(tags=["scoring"], route_class=KeyedRoute)

# The client's own code for a caller that has gone; nobody reads it but the log.
_CLIENT_CLOSED_REQUEST = 499


@router.post(
    "/v1/score",
    response_model=ScoreResponse,
    responses=error_answers(401, 404, 413, 422, 429, 500, 503, 504),
)
async def score(body: ScoreRequest, request: Request) -> Response:
    """Score candidates, with the reasons if `explain` is set.

    `score` is the checkpoint's own score, comparable between candidates of one prompt. The same
    rewards can be read by `weights` or by one or many `directions` at no further cost.
    """
    engine = state_of(request).engine(body.model)
    scored = await _score_unless_disconnected(engine, body, request)
    if scored is None:
        return Response(status_code=_CLIENT_CLOSED_REQUEST)
    headers = {f"x-{stage}-ms": f"{s * 1e3:.2f}" for stage, s in scored.stages.items()}
    headers["x-weight-version"] = engine.weight_version
    return json_response(scored.answer, headers=headers)


async def _score_unless_disconnected(
    engine: ServedModel, body: ScoreRequest, request: Request
) -> Scored | None:
    """Return the scores, or None if the client went away first; its work is then cancelled."""
    scoring = asyncio.create_task(engine.score(body))
    leaving = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({scoring, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return await scoring if scoring.done() else None
    finally:
        for task in (scoring, leaving):
            task.cancel()
        await asyncio.gather(scoring, leaving, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
