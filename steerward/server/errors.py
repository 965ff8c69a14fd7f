"""From exceptions to the error object, whoever raised them."""

from __future__ import annotations

import logging

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

logger = logging.getLogger(__name__)


def install_error_handlers(app: FastAPI) -> None:
    """Make every error of the app an OpenAI error object."""
    app.add_exception_handler(SteerwardError, _on_steerward_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_unexpected)


async def _on_steerward_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, SteerwardError)
    state_of(request).metrics.refusals.labels(error.code).inc()
    return error_response(error)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _on_steerward_error(request, invalid_request(error.errors()))


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


async def _on_unexpected(request: Request, error: Exception) -> Response:
    logger.error("%s failed: %s", request.url.path, type(error).__name__, exc_info=error)
    state_of(request).metrics.refusals.labels(SteerwardError.code).inc()
    return error_response(
        SteerwardError("the server made a mistake; its log has the cause under this request's id")
    )
