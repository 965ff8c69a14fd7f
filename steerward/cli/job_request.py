"""From what people typed to the body that makes a job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from steerward.cli.http import ServerConnection
from steerward.cli.job_settings import JobCreateConfig
from steerward.protocol.errors import InvalidRequest, NotFound
from steerward.protocol.fine_tuning import JobRequest
from steerward.protocol.scoring import ModelList
from steerward.protocol.validation import invalid_request

_FILE_ID = "file-"
# Flags that are settings of the method, by the same names.
_METHOD_FLAGS = ("iterations", "prompts_per_iteration", "candidates_per_prompt", "directions")


def job_body(config: JobCreateConfig) -> dict[str, Any]:
    """Return what was given of the request's body: no defaults, and the model and files not yet.

    Raises:
        InvalidRequest: If the server would refuse it whatever its files hold.
    """
    flags = _given({name: getattr(config, name) for name in (*_METHOD_FLAGS, "rsf")})
    if config.method != "rsf" and flags:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in flags)
        raise InvalidRequest(
            f"{named}: of method rsf, and the method is {config.method}; give --settings"
        )
    settings = {**flags.pop("rsf", {}), **(config.settings or {}), **flags}
    body: dict[str, Any] = {
        "method": {"type": config.method, config.method: settings},
        **_given({"seed": config.seed, "suffix": config.suffix}),
    }
    try:
        # As the server reads it: types of JSON, not of Python.
        JobRequest.model_validate_json(json.dumps({**body, "model": "", "training_file": ""}))
    except ValidationError as error:
        raise invalid_request(error.errors()) from error
    return body


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def job_model(connection: ServerConnection, given: str | None) -> str:
    """Return the policy to start from: the one that was named, or the only one of the server.

    Adapters and what earlier jobs made are served beside it and do not count.

    Raises:
        NotFound: If the server has no policy.
        InvalidRequest: If it has several and none was named.
    """
    if given is not None:
        return given
    cards = connection.get("/v1/models", ModelList).data
    policies = [card.id for card in cards if card.kind == "policy" and card.parent is None]
    if not policies:
        raise NotFound(
            f"the server at {connection.url} has no policy to fine-tune; start it with --policy"
        )
    if len(policies) > 1:
        raise InvalidRequest(
            f"the server has {len(policies)} policies; name one with --model: {', '.join(policies)}"
        )
    return policies[0]


def file_id(given: str) -> str | None:
    """Return the id of an uploaded file, or None for the path of one that is not."""
    is_id = given.startswith(_FILE_ID) and not Path(given).exists()
    return given if is_id else None
