"""Routes of other protocols: under which paths they are found, and how they refuse.

Each is served three times: as `/compat/PROTOCOL/PATH`, as `/p/PROFILE/PATH` with options by a
name of the settings, and as the bare path that its callers know.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, ClassVar, TypeVar

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from steerward.protocol.errors import Overloaded, Unauthorized
from steerward.server.auth import require_key
from steerward.server.disconnect import gone
from steerward.server.documentation import error_answers
from steerward.server.responses import error_response
from steerward.server.state import state_of

EndpointT = TypeVar("EndpointT", bound=Callable[..., Any])


class ClientGone(Exception):
    """The client went away before its answer was there."""


class CompatRoute(APIRoute):
    """A route for callers that send no headers, and try again after 5xx only.

    Its key may be part of the URL, and overload is answered with `busy_status` in place of 429,
    which these callers take for final, or try again without waiting.
    """

    busy_status: ClassVar[int] = 503

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request of this route; of one without a key, nothing is read.

        Raises:
            Unauthorized: If a key is needed and missing or wrong.
        """
        _require_key(Request(scope))
        await super().handle(scope, receive, send)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        answer = super().get_route_handler()

        async def answer_or_say_when(request: Request) -> Response:
            try:
                return await answer(request)
            except Overloaded as error:
                state_of(request).metrics.refusals.labels(error.code).inc()
                response = error_response(error)
                response.status_code = self.busy_status
                return response
            except ClientGone:
                return gone()

        return answer_or_say_when


def compat_router() -> APIRouter:
    """Return a router for one protocol."""
    return APIRouter(tags=["other protocols"], route_class=CompatRoute)


def serve_at(
    router: APIRouter, path: str, *, protocols: Sequence[str], answer: Any, is_bare: bool = True
) -> Callable[[EndpointT], EndpointT]:
    """Return a decorator that serves an endpoint for POST under a path of other protocols.

    Args:
        router: Of `compat_router`.
        path: That the callers know, with a slash in front.
        protocols: Names in `/compat/PROTOCOL/PATH`, which the OpenAPI document lists.
        answer: Type of the answer, for the OpenAPI document.
        is_bare: Whether the path by itself is served too: not where it is one of ours.
    """

    def register(endpoint: EndpointT) -> EndpointT:
        for protocol in protocols:
            router.post(
                # One that is named like its path has it once.
                f"/compat{path}" if path == f"/{protocol}" else f"/compat/{protocol}{path}",
                response_model=answer,
                responses=error_answers(401, 404, 413, 422, 500, 503, 504),
                openapi_extra={"parameters": _PARAMETERS},
            )(endpoint)
        for alias in (f"/p/{{profile}}{path}", *([path] if is_bare else [])):
            router.post(alias, include_in_schema=False)(endpoint)
        return endpoint

    return register


def _require_key(request: Request) -> None:
    """Let a request pass that has a key in its header or in its URL, or needs none."""
    keys = [key.get_secret_value().encode() for key in state_of(request).config.api_key]
    # Each is compared, so that time does not tell which one was close.
    matches = [
        hmac.compare_digest(given.encode(), key)
        for given in request.query_params.getlist("key")
        for key in keys
    ]
    if any(matches):
        return
    try:
        require_key(request)
    except Unauthorized:
        raise Unauthorized(
            "send a valid API key in the header `Authorization: Bearer KEY`, or from a client "
            "that sends no headers as ?key=KEY in the URL"
        ) from None


def _parameter(name: str, text: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": {"type": "string"}, "description": text}


_PARAMETERS = [
    _parameter("model", "Name of the reward model."),
    _parameter(
        "direction",
        "Preference direction as `helpfulness:0.97;verbosity:-0.26`, or the name of one; its "
        "score is answered.",
    ),
    _parameter("weights", "Weights in place of the gates, as `helpfulness:1;verbosity:0.5`."),
    _parameter("template", "Markup of texts in which prompt and answer are joined, or `none`."),
    _parameter("key", "API key, for clients that send no headers."),
]
