"""Signals."""

from __future__ import annotations

import signal
import threading

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


async def test_shutdown_takes_no_more(start_app: StartApp) -> None:
    app = await start_app()
    state = app.state.steerward
    config = uvicorn.Config(app, log_config=None, lifespan="off")
    config.load()
    server = _Server(config, state)
    server.lifespan = config.lifespan_class(config)
    server.servers = []
    await server.shutdown()
    assert not state.engines["armorm"].is_ready
    assert "shutting down" in state.engines["armorm"].reason
