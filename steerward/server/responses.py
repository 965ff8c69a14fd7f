"""Answers: JSON, encoded fast, or the bytes of another type that the client asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from steerward.protocol.errors import SteerwardError

_JSON = "application/json"
# RFC 9110, section 12.4.2. What is no weight is no wish.
_QUALITY = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")


def prefers(request: Request, media_type: str) -> bool:
    """Return whether the client would rather have a media type than JSON, the default.

    Only a type that it names counts: `*/*` is no wish. Of two types it wants as much as each
    other, the one it names beats one that a range covers, and JSON beats another.
    """
    wanted, json_wanted = (0.0, 0), (0.0, 0)
    for accepted, quality in _accepted(request):
        # Of the ranges that cover JSON the most specific decides, whatever the others weigh.
        specificity = {"*/*": 1, "application/*": 2, _JSON: 3}.get(accepted, 0)
        if specificity > json_wanted[1]:
            json_wanted = (quality, specificity)
        elif accepted == media_type:
            wanted = (quality, 3)
    return wanted[0] > 0 and wanted > json_wanted


def _accepted(request: Request) -> Iterator[tuple[str, float]]:
    """Yield the media ranges of a request with their weights."""
    for part in ",".join(request.headers.getlist("accept")).split(","):
        media_range, *parameters = (piece.strip().lower() for piece in part.split(";"))
        given = [value for value in parameters if value.startswith("q=")]
        quality = given[0].removeprefix("q=").strip() if given else "1"
        if _QUALITY.fullmatch(quality):
            yield media_range, float(quality)


def json_response(
    content: Any, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a JSON response. NaN cannot occur: the engine refuses it before."""
    return Response(
        orjson.dumps(content),
        status_code=status,
        headers=dict(headers or {}),
        media_type=_JSON,
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
    return Response(json.dumps(error.to_body()), error.status, headers, media_type=_JSON)
