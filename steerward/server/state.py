"""What the routes share: engines by name, settings, metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request

from steerward.config import ServeConfig
from steerward.engine.engine import Engine
from steerward.metrics import Metrics
from steerward.protocol.errors import InvalidRequest, NotFound, brief


@dataclass(frozen=True, slots=True)
class ServerState:
    """One server process."""

    engines: Mapping[str, Engine]
    config: ServeConfig
    metrics: Metrics

    def engine(self, model: str | None) -> Engine:
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


def state_of(request: Request) -> ServerState:
    """Return the state of the server that answers a request."""
    return request.app.state.steerward
