"""Keys: who needs one, and that nothing of a body is read before."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.conftest import StartApp, client_of

pytestmark = pytest.mark.anyio

OPEN = {"/health", "/livez", "/readyz", "/version"}


async def test_body_is_not_read_before_the_key_is_checked(start_app: StartApp) -> None:
    """30 MB were read and parsed for a caller without a key, who was then told of his JSON."""
    app = await start_app(api_key=["k"])
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("the body was read")

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/v1/score", "raw_path": b"/v1/score",
        "query_string": b"", "http_version": "1.1", "scheme": "http", "asgi": {"version": "3.0"},
        "headers": [(b"content-type", b"application/json")], "server": ("test", 80),
        "client": ("test", 1), "root_path": "",
    }  # fmt: skip
    await app(scope, receive, send)
    assert sent[0]["status"] == 401
    assert (b"www-authenticate", b"Bearer") in sent[0]["headers"]
    assert b"unauthorized" in sent[1]["body"]


async def test_every_route_but_the_open_ones_needs_a_key(start_app: StartApp) -> None:
    app = await start_app(api_key=["k"])
    paths = app.openapi()["paths"]
    assert paths.keys() > OPEN
    async with client_of(app) as client:
        for path, methods in paths.items():
            for method, operation in methods.items():
                answer = await client.request(method, path.replace("{model}", "armorm"))
                is_refused = answer.status_code == 401
                assert is_refused == (path not in OPEN), path
                assert is_refused == ("401" in operation["responses"]), path
        for path in ("/docs", "/openapi.json"):
            assert (await client.get(path)).status_code == 200
