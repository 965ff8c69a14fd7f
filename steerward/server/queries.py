"""What lists and ids have in common: pages, and what an id looks like."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from steerward.jobs.desk import JobDesk
from steerward.protocol.errors import InvalidRequest, NotReady, brief
from steerward.server.state import state_of

ID_PATTERN = "^[A-Za-z0-9_-]{1,64}$"
PathId = Annotated[str, Path(pattern=ID_PATTERN)]
GivenId = Annotated[str, Field(pattern=ID_PATTERN)]

_METADATA = re.compile(r"metadata\[(.*)\]", re.DOTALL)
_MOST_METADATA = 16
_MOST_KEY, _MOST_VALUE = 64, 512


class After(BaseModel):
    """Where a part of a list begins."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    after: GivenId | None = None
    """Id of the last entry of the page before."""


class Page(After):
    """Which part of a list."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 20
    """Most entries."""


METADATA_PARAMETER: dict[str, Any] = {
    "name": "metadata",
    "in": "query",
    "required": False,
    "description": "Pairs that a job must have: `metadata[KEY]=VALUE`, each.",
    "style": "deepObject",
    "explode": True,
    "schema": {
        "type": "object",
        "additionalProperties": {"type": "string", "maxLength": _MOST_VALUE},
        "propertyNames": {"minLength": 1, "maxLength": _MOST_KEY},
        "maxProperties": _MOST_METADATA,
    },
}


def metadata_filter(request: Request) -> dict[str, str]:
    """Return the pairs of ``metadata[KEY]=VALUE`` in a query.

    Raises:
        InvalidRequest: If one is malformed, twice there, or over a limit.
    """
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if not name.startswith("metadata"):
            continue
        place = brief(name)
        match = _METADATA.fullmatch(name)
        if match is None or not match[1]:
            raise InvalidRequest(f"{place}: write metadata[KEY]=VALUE", param=place)
        if match[1] in found:
            raise InvalidRequest(f"{place} is there twice; send it once", param=place)
        if len(match[1]) > _MOST_KEY or len(value) > _MOST_VALUE:
            raise InvalidRequest(
                f"{place}: keys have up to {_MOST_KEY} characters and values up to {_MOST_VALUE}; "
                f"this has {len(match[1])} and {len(value)}",
                param=place,
            )
        found[match[1]] = value
    if len(found) > _MOST_METADATA:
        raise InvalidRequest(
            f"{len(found)} pairs of metadata, limit {_MOST_METADATA}; leave some out",
            param="metadata",
        )
    return found


def refuse_unknown(request: Request, known: set[str]) -> None:
    """Let a query pass if it has no other keys, but for metadata.

    Raises:
        InvalidRequest: If it has one.
    """
    for name in request.query_params:
        if name not in known and not name.startswith("metadata"):
            place = brief(name)
            raise InvalidRequest(
                f"{place}: unknown key; remove it or check the spelling", param=place
            )


def desk_of(request: Request) -> JobDesk:
    """Return the desk of the server that answers a request.

    Raises:
        NotReady: If it has none.
    """
    desk = state_of(request).jobs
    if desk is None:
        raise NotReady(
            "this server runs no fine-tuning jobs; start it without --no-jobs", retry_after_s=60.0
        )
    return desk
