"""Signals."""

from __future__ import annotations

import asyncio
import signal
import threading

import httpx
import pytest
import uvicorn

from steerward.server.run import _Server
from tests.server.conftest import StartApp

pytestmark = pytest.mark.anyio


async def test_signal_may_land_while_the_metrics_are_read(start_app: StartApp) -> None:
    """The handler set a gauge, whose lock the interrupted thread might hold: a deadlock."""
    app = await start_app()
    state = app.state.steerward
    server = _Server(uvicorn.Config(app, log_config=None), state)
    gauge = state.metrics.ready
    value = gauge.labels("armorm")._value
    with gauge._lock, value._lock:
        handler = threading.Thread(
            target=server.handle_exit, args=(signal.SIGTERM, None), daemon=True
        )
        handler.start()
        handler.join(timeout=10.0)
        assert not handler.is_alive()
    assert server.should_exit
    assert state.engines["armorm"].is_ready


async def test_what_is_not_done_at_the_drain_deadline_is_answered_503(
    start_app: StartApp,
) -> None:
    app = await start_app(max_batch_tokens=64, drain_timeout_s=0.1)
    engine = app.state.steerward.engines["armorm"].current
    # The engines are started by now.
    config = uvicorn.Config(app, port=0, log_config=None, lifespan="off")
    server = _Server(config, app.state.steerward)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.001)
    (listener,) = server.servers[0].sockets
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/score"
    items = [{"prompt": f"p {i}", "candidates": ["word " * 300]} for i in range(300)]
    async with httpx.AsyncClient(timeout=120.0) as client:
        asking = asyncio.create_task(client.post(url, json={"items": items}))
        while not engine._worker.queued_tokens:
            await asyncio.sleep(0.001)
        server.should_exit = True
        answer = await asking
    await serving
    assert answer.status_code == 503
    assert "shutting down" in answer.json()["error"]["message"]
    assert "has stopped" in engine.reason
