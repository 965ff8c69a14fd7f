"""Around every request: id, body limit, the unexpected, access log, metrics.

Plain ASGI, no copies of bodies.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from steerward.logs import request_id
from steerward.metrics import Metrics
from steerward.protocol.errors import InputTooLong, SteerwardError
from steerward.server.responses import error_response

logger = logging.getLogger(__name__)
access_logger = logging.getLogger("steerward.access")

_CLIENT_ID = re.compile(r"[\w.:-]{1,128}")


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """How large the bodies of a route may be."""

    max_bytes: int
    option: str
    """Of the command line, which raises it."""


class RequestMiddleware:
    """Gives every request an id, an answer and a line in the log; refuses bodies over the limit.

    Args:
        app: The app inside.
        metrics: Of this process.
        max_body_bytes: Largest body.
        limits: Of the paths that have their own.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: Metrics,
        max_body_bytes: int,
        limits: Mapping[str, BodyLimit] | None = None,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._limit = BodyLimit(max_body_bytes, "--max-body-bytes")
        self._limits = dict(limits or {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection event of ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        current = given if _CLIENT_ID.fullmatch(given) else f"req-{uuid.uuid4().hex}"
        token = request_id.set(current)
        began_at = time.perf_counter()
        limit = self._limits.get(scope["path"], self._limit)
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = current
            await send(message)

        try:
            if _is_declared_too_long(headers, limit):
                await self._answer(_too_long(limit), scope, receive, send_with_id)
            else:
                await self._run_limited(scope, receive, send_with_id, limit)
        # Here and not in a handler of Starlette's: those run outside, where the id is unknown.
        except Exception as error:
            logger.error("a request failed: %s", type(error).__name__, exc_info=error)
            if status:
                raise  # The answer has begun; the connection must break.
            await self._answer(_unexpected(), scope, receive, send_with_id)
        finally:
            self._record(scope, status or 500, time.perf_counter() - began_at)
            request_id.reset(token)

    async def _run_limited(
        self, scope: Scope, receive: Receive, send: Send, limit: BodyLimit
    ) -> None:
        """Run the app, counting the body of requests that did not declare its length."""
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit.max_bytes:
                raise _too_long(limit)
            return message

        await self._app(scope, receive_limited, send)

    async def _answer(
        self, error: SteerwardError, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._metrics.refusals.labels(error.code).inc()
        await error_response(error)(scope, receive, send)

    def _record(self, scope: Scope, status: int, duration_s: float) -> None:
        # The route's pattern, not its path: paths are the client's, patterns a closed set.
        route = getattr(scope.get("route"), "path", "unknown")
        self._metrics.requests.labels(route, str(status)).inc()
        self._metrics.request_duration.labels(route).observe(duration_s)
        access_logger.info(
            "%s %s %d",
            scope["method"],
            route,
            status,
            extra={"duration_ms": round(duration_s * 1e3, 2)},
        )


def _is_declared_too_long(headers: Headers, limit: BodyLimit) -> bool:
    declared = headers.get("content-length", "")
    return declared.isdecimal() and int(declared) > limit.max_bytes


def _too_long(limit: BodyLimit) -> InputTooLong:
    return InputTooLong(
        f"the body is larger than {limit.max_bytes:,} bytes; send several requests, or start the "
        f"server with a larger {limit.option}"
    )


def _unexpected() -> SteerwardError:
    return SteerwardError(
        "the server made a mistake; its log has the cause under this request's id"
    )
