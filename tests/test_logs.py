"""Logs carry request ids, never a prompt, and one line for each request."""

from __future__ import annotations

import json
import logging

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from steerward import logs


@pytest.mark.parametrize("form", ["text", "json"])
def test_record_has_its_fields(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", form)
    token = logs.request_id.set("req-9")
    logging.getLogger("steerward.test").info("scored %d", 3, extra={"duration_ms": 1.5})
    logs.request_id.reset(token)
    logging.getLogger("steerward.test").debug("too quiet")
    (line,) = capsys.readouterr().err.splitlines()
    if form == "json":
        record = json.loads(line)
        assert record["message"] == "scored 3"
        assert record["request_id"] == "req-9"
        assert record["duration_ms"] == 1.5
    else:
        assert "scored 3" in line
        assert "request_id=req-9 duration_ms=1.5" in line


@pytest.mark.parametrize("form", ["text", "json"])
def test_exception_is_kept(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", form)
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logging.getLogger("steerward.test").exception("it failed")
    assert "RuntimeError: broken" in capsys.readouterr().err


@pytest.mark.anyio
@pytest.mark.parametrize("level", ["debug", "info"])
async def test_requests_to_other_servers_are_no_lines_of_ours(
    level: str, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.set_up(level, "text")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("fine")(scope, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
        await client.get("http://elsewhere/v1/models?key=hush")
    logging.getLogger("httpcore.connection").info("connect_tcp.started host=elsewhere")
    assert capsys.readouterr().err == ""
    for name in ("httpx", "httpcore.connection"):
        logging.getLogger(name).warning("odd")
    assert len(capsys.readouterr().err.splitlines()) == 2
