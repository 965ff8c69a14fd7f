"""What the OpenAPI document says of errors."""

from __future__ import annotations

from typing import Any

from steerward.protocol.errors import ErrorBody

_MEANING = {
    401: "No API key, or a wrong one",
    404: "No such model",
    413: "A text, list or body over its limit; nothing is ever cut",
    422: "The request breaks a rule; the message names the place and the way out",
    429: "The queue is full, or too long for the time-out; try again after `Retry-After` seconds",
    500: "A device failed, or a score is not finite; no part of the answer is returned",
    503: "Starting, draining, or the device has failed",
    504: "The deadline passed",
}


def error_answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI entries of error statuses."""
    return {status: {"model": ErrorBody, "description": _MEANING[status]} for status in statuses}
