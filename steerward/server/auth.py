"""Bearer keys, compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from pydantic import SecretStr
from starlette.requests import Request

from steerward.protocol.errors import Unauthorized
from steerward.server.state import state_of


def require_key(request: Request) -> None:
    """Let a request pass if no key is set or it carries one of them.

    Raises:
        Unauthorized: If it carries none, or a wrong one.
    """
    _check(request, state_of(request).config.api_key)


def require_key_for_metrics(request: Request) -> None:
    """The same for metrics, unless they are public.

    Raises:
        Unauthorized: If a key is needed and missing or wrong.
    """
    config = state_of(request).config
    if not config.public_metrics:
        _check(request, config.api_key)


def _check(request: Request, keys: Sequence[SecretStr]) -> None:
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
