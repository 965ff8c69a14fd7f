"""``POST /v1/models``: serve weights that lie on the server's machine beside a policy."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

from steerward.policy.trainable import TrainablePolicy
from steerward.protocol.errors import InvalidRequest, NotFound, brief
from steerward.protocol.policies import LoadRequest, PolicyCard
from steerward.server.auth import KeyedRoute
from steerward.server.cards import model_card
from steerward.server.documentation import error_answers
from steerward.server.responses import json_response
from steerward.server.state import ServerState, state_of

router = APIRouter(tags=["operations"], route_class=KeyedRoute)


@router.post(
    "/v1/models", response_model=PolicyCard, responses=error_answers(401, 404, 422, 500, 503)
)
async def load_model(body: LoadRequest, request: Request) -> Response:
    """Serve weights, or a LoRA adapter, under a name of their own beside a policy.

    If the name is served already, its weights are exchanged: requests that run are finished with
    those that they began with, requests from then on take the new ones, and none fails. The
    folder must lie below the server's state folder, or one that it was started with
    (`--weights-dir`). What is loaded so is served until the server stops.
    """
    state = state_of(request)
    policy = _parent(state, body.parent)
    if body.id in state.engines or body.id in state.policies:
        raise InvalidRequest(
            f"{brief(body.id)!r} is the name of a model that the server was started with; give "
            "another",
            param="id",
        )
    folder = _allowed(Path(body.path), state.weight_folders)
    is_adapter = (folder / "adapter_config.json").is_file()
    load = policy.load_adapter if is_adapter else policy.load_variant
    await asyncio.to_thread(load, body.id, folder)
    return json_response(model_card(state, body.id).model_dump())


def _parent(state: ServerState, name: str | None) -> TrainablePolicy:
    if name is not None and name not in state.policies:
        known = ", ".join(state.policies) or "none"
        raise NotFound(f"there is no policy {brief(name)!r} here; known: {known}", param="parent")
    steered, _ = state.policy(name)
    if not isinstance(steered.policy, TrainablePolicy):
        raise InvalidRequest(
            f"{steered.policy.name!r} lives on another server; load the weights there",
            param="parent",
        )
    return steered.policy


def _allowed(path: Path, folders: tuple[Path, ...]) -> Path:
    """Return a folder whose real place is below one of those allowed."""
    folder = path.expanduser().resolve()
    if not any(folder.is_relative_to(allowed.resolve()) for allowed in folders):
        raise InvalidRequest(
            "the folder lies below none that weights may be loaded from; start the server with "
            "--weights-dir",
            param="path",
        )
    if not folder.is_dir():
        raise NotFound("there is no such folder on the server's machine", param="path")
    return folder
