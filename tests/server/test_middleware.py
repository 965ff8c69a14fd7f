"""What holds for every request, also for those that fail in a way nobody foresaw."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.responses import StreamingResponse

from steerward.logs import request_id
from tests.server.conftest import StartApp, client_of

pytestmark = pytest.mark.anyio


class IdRecorder(logging.Handler):
    """Keeps the request id under which each error is logged."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.ids: list[str | None] = []

    def emit(self, record: logging.LogRecord) -> None:
        assert record.levelno >= self.level
        self.ids.append(request_id.get())


async def test_unexpected_failure_is_answered_and_logged_under_its_id(
    start_app: StartApp,
) -> None:
    """The answer pointed to an id that neither it nor the log held."""
    app = await start_app()

    @app.get("/broken")
    async def broken() -> None:
        raise ZeroDivisionError

    recorder = IdRecorder()
    logging.getLogger().addHandler(recorder)
    async with client_of(app) as client:
        answer = await client.get("/broken", headers={"x-request-id": "mine-1"})
        metrics = (await client.get("/metrics")).text
    assert answer.status_code == 500
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.json()["error"]["code"] == "error"
    assert "request's id" in answer.json()["error"]["message"]
    assert recorder.ids == ["mine-1"]
    assert 'steerward_requests_total{route="/broken",status="500"} 1.0' in metrics
    assert 'steerward_refusals_total{code="error"} 1.0' in metrics


async def test_failure_in_the_middle_of_an_answer_breaks_the_connection(
    start_app: StartApp,
) -> None:
    app = await start_app()

    async def parts() -> AsyncIterator[bytes]:
        yield b"one"
        raise ZeroDivisionError

    @app.get("/broken")
    async def broken() -> StreamingResponse:
        return StreamingResponse(parts())

    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        with pytest.raises(ZeroDivisionError):
            await client.get("/broken")
