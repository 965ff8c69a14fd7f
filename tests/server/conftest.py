"""The real app around real engines, spoken to in process over ASGI."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from steerward.config import ServeConfig
from steerward.engine.loading import load_engines
from steerward.metrics import Metrics
from steerward.server.app import create_app
from tests.golden_cases import GOLDEN

StartApp = Callable[..., Any]


@pytest.fixture
async def start_app(clean_environment: None) -> AsyncIterator[StartApp]:
    """Return a function that starts an app with its engines ready."""
    async with AsyncExitStack() as stack:

        async def start(*names: str, **config: Any) -> FastAPI:
            models = [str(GOLDEN / name) for name in names or ("armorm",)]
            # Without kept prompts the same request has the same scores to the bit.
            fixed = {"device": "cpu", "prefix_cache_bytes": 0}
            settings = ServeConfig(reward_model=models, **{**fixed, **config})
            metrics = Metrics()
            engines = load_engines(settings, metrics)
            app = create_app(settings, engines, {}, metrics)
            await stack.enter_async_context(app.router.lifespan_context(app))
            for engine in engines.values():
                await engine.wait_until_ready()
            return app

        yield start


@pytest.fixture
async def client(start_app: StartApp) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app that serves the golden ArmoRM checkpoint."""
    async with client_of(await start_app()) as http:
        yield http


def client_of(app: FastAPI, **options: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test", **options)


BODY: dict[str, Any] = {
    "items": [{"prompt": "Explain rainbows.", "candidates": ["Light splits in drops.", "No."]}]
}
