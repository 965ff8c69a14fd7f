"""Load the models, then listen: what ``steerward serve`` does."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import socket

import uvicorn

from steerward.config import ServeConfig
from steerward.engine.loading import load_engines
from steerward.metrics import Metrics
from steerward.server.app import create_app
from steerward.server.jobs import open_jobs
from steerward.server.state import ServerState

logger = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """On SIGTERM: takes no more, finishes what is in flight, and at the deadline answers 503.

    The signal handler is uvicorn's and only sets a flag: it runs between any two instructions of
    the main thread, which may hold a lock of the metrics just then.
    """

    def __init__(self, config: uvicorn.Config, state: ServerState) -> None:
        super().__init__(config)
        self._state = state
        self._freezing: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            self._freezing = asyncio.create_task(self._freeze_when_warm())

    async def _freeze_when_warm(self) -> None:
        """What lives then lives until the end; the collector need not look at it again."""
        models = [*self._state.engines.values()]
        models += [steered.policy for steered in self._state.policies.values()]
        await asyncio.gather(*(m.wait_until_ready() for m in models), return_exceptions=True)
        gc.collect()
        gc.freeze()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._state.begin_drain()
        deadline = asyncio.create_task(self._close_at_deadline())
        try:
            await super().shutdown(sockets)
        finally:
            deadline.cancel()
            if self._freezing is not None:
                self._freezing.cancel()

    async def _close_at_deadline(self) -> None:
        await asyncio.sleep(self._state.config.drain_timeout_s)
        await self._state.close()


def serve(config: ServeConfig) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight.

    Raises:
        SteerwardError: If a model cannot be loaded, or the jobs' state not be kept.
    """
    # Only here: the application serves whatever policies it is given.
    from steerward.policy.loading import load_policies

    if config.is_exposed and not config.api_key:
        logger.warning(
            "listening on %s without an API key: everyone who can reach it can use it", config.host
        )
    metrics = Metrics()
    engines = load_engines(config, metrics)
    policies = load_policies(config, taken=list(engines))
    jobs = open_jobs(config, policies, engines) if config.jobs else None
    app = create_app(config, engines, policies, metrics, jobs)
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
        app.state.steerward,
    )
    server.run()
