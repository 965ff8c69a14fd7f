"""JSON answers, encoded fast."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

from steerward.protocol.errors import SteerwardError


def json_response(
    content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a JSON response. NaN cannot occur: the engine refuses it before."""
    return Response(
        orjson.dumps(content),
        status_code=status,
        headers=dict(headers or {}),
        media_type="application/json",
    )


def error_response(error: SteerwardError) -> Response:
    """Return the OpenAI error object with the headers that clients act on.

    Errors name what was sent, which may be no Unicode text: the escapes of the standard encoder
    can spell that, orjson refuses to.
    """
    headers: dict[str, str] = {}
    if error.is_retryable:
        headers["retry-after"] = str(max(1, round(error.retry_after_s or 1.0)))
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(
        json.dumps(error.to_body()), error.status, headers, media_type="application/json"
    )
