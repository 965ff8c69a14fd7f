"""``POST /v1/models``: serve weights that lie on the server's machine, in place of others too."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

from steerward.policy.trainable import TrainablePolicy
from steerward.protocol.errors import InvalidRequest, NotFound, brief
from steerward.protocol.policies import LoadRequest
from steerward.protocol.scoring import AnyCard
from steerward.server.auth import KeyedRoute
from steerward.server.cards import model_card
from steerward.server.documentation import error_answers
from steerward.server.responses import json_response
from steerward.server.state import ServerState, state_of

router = APIRouter(tags=["operations"], route_class=KeyedRoute)


@router.post(
    "/v1/models", response_model=AnyCard, responses=error_answers(401, 404, 422, 429, 500, 503)
)
async def load_model(body: LoadRequest, request: Request) -> Response:
    """Exchange the weights of a model, or serve others, or a LoRA adapter, beside a policy.

    `id` is what they are served as. If that is served already, a reward model, a policy or what
    was loaded beside one, its weights are exchanged: requests that run are finished with those
    that they began with, requests from then on take the new ones, and none fails. Every answer
    names the version that gave it. Else they are served under that name beside the policy
    `parent`.

    The answer comes when the new weights are warm and have taken over. Both are in memory until
    the last request of the old ones is answered; a reward model takes no further exchange before
    that (429). A folder that does not load, or would change the keys of answers, is refused, and
    the old weights go on. Adapters of a policy go with the weights that they adapted. A
    fine-tuning job whose reward model or policy is exchanged while it samples fails and says so.

    The folder must lie below the server's state folder, or one that it was started with
    (`--weights-dir`). What is loaded so is served until the server stops; then it starts with
    what its settings name.
    """
    state = state_of(request)
    if state.jobs is not None and await state.jobs.owns(body.id):
        raise InvalidRequest(
            f"{brief(body.id)!r} is what a fine-tuning job is made of or has made; give another id",
            param="id",
        )
    is_started = body.id in state.engines or body.id in state.policies
    if is_started and body.parent not in (None, body.id):
        raise InvalidRequest(
            f"{brief(body.id)!r} is a model that the server was started with, and has no parent; "
            "leave it out to exchange the model's weights, or give another id",
            param="parent",
        )
    if body.id in state.engines:
        folder = _allowed(Path(body.path), state.weight_folders)
        await state.engines[body.id].exchange(folder)
    else:
        policy = _policy(state, body.id if is_started else body.parent)
        folder = _allowed(Path(body.path), state.weight_folders)
        await asyncio.to_thread(_load, policy, body.id, folder, is_own=is_started)
    return json_response(model_card(state, body.id).model_dump())


def _load(policy: TrainablePolicy, name: str, folder: Path, *, is_own: bool) -> None:
    """Let a policy, or what is beside it under a name, draw by the weights of a folder. Blocks."""
    is_adapter = (folder / "adapter_config.json").is_file()
    if is_own and is_adapter:
        raise InvalidRequest(
            f"the folder holds an adapter, which is served beside {name!r}; give another id, and "
            "the policy as parent",
            param="id",
        )
    if is_own:
        policy.swap_weights(folder)
    elif is_adapter:
        policy.load_adapter(name, folder)
    else:
        policy.load_variant(name, folder)


def _policy(state: ServerState, name: str | None) -> TrainablePolicy:
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
    try:
        folder = path.expanduser().resolve()
    # A NUL, a home of nobody, links in a circle.
    except (ValueError, RuntimeError, OSError) as error:
        raise InvalidRequest(f"the path names no folder: {error}", param="path") from None
    if not any(folder.is_relative_to(allowed.resolve()) for allowed in folders):
        raise InvalidRequest(
            "the folder lies below none that weights may be loaded from; start the server with "
            "--weights-dir",
            param="path",
        )
    if not folder.is_dir():
        raise NotFound("there is no such folder on the server's machine", param="path")
    return folder
