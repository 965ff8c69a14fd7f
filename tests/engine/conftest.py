"""Engines on real checkpoints."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from steerward.config import EngineConfig
from steerward.engine.engine import Engine
from steerward.metrics import Metrics
from steerward.models.checkpoint import load_reward_model
from steerward.protocol.scoring import ScoreRequest
from tests.golden_cases import GOLDEN

StartEngine = Callable[..., Any]


@pytest.fixture
async def start_engine() -> AsyncIterator[StartEngine]:
    """Return a function that starts an engine on a golden checkpoint of its own."""
    engines: list[Engine] = []

    async def start(
        name: str = "armorm", *, metrics: Metrics | None = None, **config: Any
    ) -> Engine:
        model = load_reward_model(GOLDEN / name, device="cpu")
        settings = EngineConfig(device="cpu", **config)
        engine = Engine(model, name=name, config=settings, metrics=metrics or Metrics())
        engines.append(engine)
        engine.start()
        await engine.wait_until_ready()
        return engine

    yield start
    for engine in engines:
        engine.close()


def request(**fields: Any) -> ScoreRequest:
    """Return a request, by default of one prompt and one candidate."""
    items = [{"prompt": "Explain rainbows.", "candidates": ["Light splits in drops."]}]
    return ScoreRequest.model_validate({"items": items, **fields})
