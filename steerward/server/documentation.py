"""What the OpenAPI document says of errors and of events."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from steerward.protocol.chat import ChatCompletionChunk
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


def describe_events(app: FastAPI) -> None:
    """Add the type of streamed events to the OpenAPI document: no route has it as its answer."""
    describe = app.openapi

    def described() -> dict[str, Any]:
        is_new = app.openapi_schema is None
        document = describe()
        if is_new:
            _, types = models_json_schema(
                [(ChatCompletionChunk, "serialization")],
                ref_template="#/components/schemas/{model}",
            )
            for name, schema in types["$defs"].items():
                document["components"]["schemas"].setdefault(name, schema)
        return document

    app.openapi = described
