"""What the routes share: engines by name, settings, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from starlette.requests import Request

from steerward.config import ServeConfig
from steerward.engine.served import ServedModel
from steerward.metrics import Metrics
from steerward.protocol.errors import InvalidRequest, NotFound, brief


@dataclass(frozen=True, slots=True)
class ServerState:
    """One server process."""

    engines: Mapping[str, ServedModel]
    config: ServeConfig
    metrics: Metrics

    def engine(self, model: str | None) -> ServedModel:
        """Return the engine of a model.

        Raises:
            NotFound: If no reward model has that name; the known ones are listed.
            InvalidRequest: If no name is given and there are several.
        """
        known = ", ".join(self.engines)
        if model is None:
            if len(self.engines) > 1:
                raise InvalidRequest(f"name the model, one of: {known}", param="model")
            return next(iter(self.engines.values()))
        engine = self.engines.get(model)
        if engine is None:
            raise NotFound(
                f"there is no model {brief(model)!r} here; known: {known}", param="model"
            )
        return engine

    def begin_drain(self) -> None:
        """Take no more requests."""
        for engine in self.engines.values():
            engine.begin_drain()

    async def close(self) -> None:
        """Close all engines at once: each answers what waits, and may take seconds to end."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(max_workers=max(1, len(self.engines))) as pool:
            await asyncio.gather(
                *(loop.run_in_executor(pool, engine.close) for engine in self.engines.values())
            )


def state_of(request: Request) -> ServerState:
    """Return the state of the server that answers a request."""
    return request.app.state.steerward
