"""Bearer keys, compared in constant time, before anything of a body is read."""

from __future__ import annotations

import hmac

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from steerward.protocol.errors import Unauthorized
from steerward.server.state import state_of


class KeyedRoute(APIRoute):
    """A route that needs a key where one is set.

    FastAPI reads and parses the body before it runs dependencies: a check there would let
    everybody make the server do so.
    """

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request of this route.

        Raises:
            Unauthorized: If a key is needed and missing or wrong.
        """
        require_key(Request(scope))
        await super().handle(scope, receive, send)


def require_key(request: Request) -> None:
    """Let a request pass if no key is set or it carries one of them.

    Raises:
        Unauthorized: If it carries none, or a wrong one.
    """
    keys = state_of(request).config.api_key
    if not keys:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # Starlette reads header bytes as Latin-1, so this gives back the bytes that were sent.
    # Every key is compared, so that time does not tell which one was close.
    matches = [
        hmac.compare_digest(given.encode("latin-1"), key.get_secret_value().encode())
        for key in keys
    ]
    if scheme.lower() != "bearer" or not any(matches):
        raise Unauthorized("send a valid API key in the header `Authorization: Bearer KEY`")
