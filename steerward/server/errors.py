"""From exceptions to the error object, whoever raised them."""

from __future__ import annotations

from email.message import Message

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from steerward.protocol.errors import (
    InvalidRequest,
    NotFound,
    SteerwardError,
    brief,
    error_from_body,
)
from steerward.protocol.validation import invalid_request
from steerward.server.responses import error_response
from steerward.server.state import state_of


def install_error_handlers(app: FastAPI) -> None:
    """Make every error of the app an OpenAI error object; the middleware sees to the unexpected."""
    app.add_exception_handler(SteerwardError, _on_steerward_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def _on_steerward_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SteerwardError)
    state_of(request).metrics.refusals.labels(error.code).inc()
    return error_response(error)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    findings = error.errors()
    if findings[0]["loc"] == ("body",) and not _is_json(request):
        # Without the type FastAPI takes the bytes for the value.
        return await _on_steerward_error(request, _not_sent_as_json(request))
    return await _on_steerward_error(request, invalid_request(findings))


def _is_json(request: Request) -> bool:
    header = Message()
    header["content-type"] = request.headers.get("content-type", "text/plain")
    main, sub = header.get_content_maintype(), header.get_content_subtype()
    return main == "application" and (sub == "json" or sub.endswith("+json"))


def _not_sent_as_json(request: Request) -> InvalidRequest:
    given = request.headers.get("content-type")
    said = f"is sent as {brief(given)!r}" if given else "has no Content-Type"
    return InvalidRequest(f"the body {said}; send Content-Type: application/json")


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """Routes that do not exist, methods that do not fit, bodies that are not JSON."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, SteerwardError):
        # The body limit struck while FastAPI was reading.
        return await _on_steerward_error(request, error.__cause__)
    if error.status_code == 404:
        return await _on_steerward_error(
            request, NotFound(f"there is no route {brief(request.url.path)}; see /docs")
        )
    body = {"error": {"message": str(error.detail)}}
    mapped = error_from_body(error.status_code, body)
    if error.status_code == 400:
        mapped = InvalidRequest(f"the body is not JSON in UTF-8: {error.detail}")
    response = await _on_steerward_error(request, mapped)
    response.status_code = error.status_code if error.status_code == 405 else mapped.status
    response.headers.update(error.headers or {})
    return response
