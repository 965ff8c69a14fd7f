"""Models, health, version, metrics."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

import steerward
from steerward.protocol.errors import NotReady
from steerward.protocol.scoring import AnyCard, ModelList
from steerward.server.auth import KeyedRoute, require_key
from steerward.server.cards import model_card, model_cards
from steerward.server.documentation import error_answers
from steerward.server.responses import json_response
from steerward.server.state import state_of

router = APIRouter(tags=["operations"])
"""Open to everyone."""
keyed_router = APIRouter(tags=["operations"], route_class=KeyedRoute)


@keyed_router.get(
    "/v1/models",
    response_model=ModelList,
    responses=error_answers(401),
)
async def list_models(request: Request) -> Response:
    """Return the models with limits, weight version and queue.

    Those of kind `reward` score at `POST /v1/score`, those of kind `policy` generate at
    `POST /v1/chat/completions`.
    """
    cards = model_cards(state_of(request))
    return json_response(ModelList(data=cards).model_dump())


# Whoever names a model may put slashes into the name.
@keyed_router.get(
    "/v1/models/{model:path}",
    response_model=AnyCard,
    responses=error_answers(401, 404, 422),
)
async def get_model(model: str, request: Request) -> Response:
    """Return one model."""
    return json_response(model_card(state_of(request), model).model_dump())


@router.get("/livez")
async def livez() -> dict[str, str]:
    """Answer that the process runs."""
    return {"status": "alive"}


@router.get("/readyz", responses=error_answers(503))
@router.get("/health", responses=error_answers(503))
async def readyz(request: Request) -> dict[str, str]:
    """Answer 200 if every model takes requests, else 503 with the reason.

    A model on several devices takes requests while one of them works; `degraded` names the others.
    """
    degraded: list[str] = []
    state = state_of(request)
    policies = [steered.policy for steered in state.policies.values()]
    for model in (*state.engines.values(), *policies):
        if not model.is_ready:
            raise NotReady(f"{model.name}: {model.reason}", retry_after_s=5.0)
        if model.reason:
            degraded.append(f"{model.name}: {model.reason}")
    return {"status": "ready"} | ({"degraded": "; ".join(degraded)} if degraded else {})


@router.get("/version")
async def version() -> dict[str, str]:
    """Return the version of the server."""
    return {"version": steerward.__version__}


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, **error_answers(401)},
)
async def metrics(request: Request) -> Response:
    """Return all metrics in Prometheus' text format; without a key only if they are public."""
    state = state_of(request)
    if not state.config.public_metrics:
        require_key(request)
    for name, steered in state.policies.items():
        card = steered.policy.card()
        state.metrics.running_completions.labels(name).set(card.running)
        state.metrics.waiting_completions.labels(name).set(card.waiting)
    return Response(
        state.metrics.exposition(),
        media_type="text/plain; version=0.0.4; charset=utf-8",
    )
