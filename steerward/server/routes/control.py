"""Control of a server by a training loop: hold requests, and ask which weights answer."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from steerward.protocol.wire import AnswerModel
from steerward.server.auth import KeyedRoute
from steerward.server.cards import model_card
from steerward.server.documentation import error_answers
from steerward.server.responses import json_response
from steerward.server.state import ServerState, state_of

router = APIRouter(tags=["operations"], route_class=KeyedRoute)


class PauseOptions(BaseModel):
    """How to pause; the words are vLLM's."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    mode: Literal["wait"] = "wait"
    """Requests that run are finished. vLLM's other modes, abort and keep, are not supported."""
    wait_for_inflight_requests: bool = True
    """Answer when they are finished, and not before."""
    clear_cache: bool = True
    """Without effect: what is kept of prompts belongs to one version of the weights."""


class PauseState(AnswerModel):
    """Whether requests are held."""

    status: Literal["paused", "resumed"]
    is_paused: bool
    running: int
    """Requests that score or generate now."""
    held: int
    """Requests that wait for the end of the pause."""


class WeightVersion(AnswerModel):
    """Which weights a model has."""

    object: Literal["weight_version"] = "weight_version"
    model: str
    kind: Literal["reward", "policy"]
    weight_version: str


@router.post("/pause", response_model=PauseState, responses=error_answers(401, 422, 504))
async def pause(options: Annotated[PauseOptions, Query()], request: Request) -> Response:
    """Hold requests that score or generate from now on, and finish those that run.

    A held request is answered after `POST /resume`, or with 504 when its time is up. Health,
    models, tokens and jobs are answered as ever. To pause twice is to pause.
    """
    state = state_of(request)
    state.pause.begin()
    if options.wait_for_inflight_requests:
        config = state.config
        await state.pause.wait_until_idle(
            max(config.request_timeout_s, config.generation_timeout_s)
        )
    return json_response(_pause_state(state))


@router.post("/resume", response_model=PauseState, responses=error_answers(401))
async def resume(request: Request) -> Response:
    """Let requests go on, those that were held too."""
    state = state_of(request)
    state.pause.end()
    return json_response(_pause_state(state))


@router.get("/is_paused", response_model=PauseState, responses=error_answers(401))
async def is_paused(request: Request) -> Response:
    """Return whether requests are held."""
    return json_response(_pause_state(state_of(request)))


@router.get(
    "/v1/weight_version", response_model=WeightVersion, responses=error_answers(401, 404, 422)
)
async def weight_version(request: Request, model: str | None = None) -> Response:
    """Return the version of the weights that answer from now on, also named in every answer.

    `model` is a reward model, a policy or a variant of one; it may be left out where there is
    only one reward model, which is then meant.
    """
    state = state_of(request)
    name = state.engine(None).name if model is None else model
    card = model_card(state, name)
    answer = {
        "object": "weight_version",
        "model": card.id,
        "kind": card.kind,
        "weight_version": card.weight_version,
    }
    return json_response(answer, headers={"x-weight-version": card.weight_version})


def _pause_state(state: ServerState) -> dict[str, object]:
    pause = state.pause
    return {
        "status": "paused" if pause.is_on else "resumed",
        "is_paused": pause.is_on,
        "running": pause.num_running,
        "held": pause.num_held,
    }
