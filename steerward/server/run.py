"""Load the models, then listen: what ``steerward serve`` does."""

from __future__ import annotations

import gc
import logging
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
    """Says on SIGTERM that it takes no more, before it stops listening."""

    def __init__(self, config: uvicorn.Config, engines: Mapping[str, Engine]) -> None:
        super().__init__(config)
        self._engines = engines

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        for engine in self._engines.values():
            engine.begin_drain()
        super().handle_exit(sig, frame)


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
            timeout_graceful_shutdown=round(config.drain_timeout_s),
            server_header=False,
        ),
        engines,
    )
    server.run()


