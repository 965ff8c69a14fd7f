"""Load the models, then listen: what ``steerward serve`` does."""

from __future__ import annotations

import gc
import logging
import math
import threading
from collections.abc import Mapping
from types import FrameType

import uvicorn

from steerward.config import ServeConfig
from steerward.engine.engine import Engine
from steerward.engine.loading import load_engines
from steerward.metrics import Metrics
from steerward.server.app import create_app

logger = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """On SIGTERM: takes no more, finishes what is in flight, and at the deadline answers 503."""

    def __init__(
        self, config: uvicorn.Config, engines: Mapping[str, Engine], *, drain_timeout_s: float
    ) -> None:
        super().__init__(config)
        self._engines = engines
        self._drain_timeout_s = drain_timeout_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        for engine in self._engines.values():
            engine.begin_drain()
        deadline = threading.Timer(self._drain_timeout_s, self._close_engines)
        deadline.daemon = True
        deadline.start()
        super().handle_exit(sig, frame)

    def _close_engines(self) -> None:
        for engine in self._engines.values():
            engine.close()


def serve(config: ServeConfig) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight.

    Raises:
        SteerwardError: If a reward model cannot be loaded.
    """
    if config.is_exposed and not config.api_key:
        logger.warning(
            "listening on %s without an API key: everyone who can reach it can use it", config.host
        )
    metrics = Metrics()
    engines = load_engines(config, metrics)
    app = create_app(config, engines, metrics)
    # What lives now lives until the end; the collector need not look at it again.
    gc.collect()
    gc.freeze()
    server = _Server(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            log_config=None,
            access_log=False,
            # Only a guard: at the drain deadline the engines have answered every request.
            timeout_graceful_shutdown=math.ceil(config.drain_timeout_s) + 15,
            server_header=False,
        ),
        engines,
        drain_timeout_s=config.drain_timeout_s,
    )
    server.run()
