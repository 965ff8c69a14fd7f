"""The real app around real engines, spoken to in process over ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from steerward.config import ServeConfig
from steerward.engine.loading import load_engines
from steerward.metrics import Metrics
from steerward.policy.loading import load_policies
from steerward.server.app import create_app
from tests.golden_cases import GOLDEN
from tests.policies import ARMORM_RULE, save_policy

StartApp = Callable[..., Any]


@pytest.fixture
async def start_app(clean_environment: None) -> AsyncIterator[StartApp]:
    """Return a function that starts an app with its models ready."""
    async with AsyncExitStack() as stack:

        async def start(*names: str, **config: Any) -> FastAPI:
            models = [str(GOLDEN / name) for name in names or ("armorm",)]
            # Without kept prompts the same request has the same scores to the bit.
            fixed = {"device": "cpu", "prefix_cache_bytes": 0, "policy": [], "policy_device": "cpu"}
            settings = ServeConfig(reward_model=models, **{**fixed, **config})
            metrics = Metrics()
            engines = load_engines(settings, metrics)
            policies = load_policies(settings, taken=list(engines))
            app = create_app(settings, engines, policies, metrics)
            await stack.enter_async_context(app.router.lifespan_context(app))
            for model in (*engines.values(), *policies.values()):
                await model.wait_until_ready()
            return app

        yield start


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny policy that reads directions, under names that the golden ArmoRM scores."""
    return str(save_policy(tmp_path_factory.mktemp("policies") / "tiny", rule=ARMORM_RULE))


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


@asynccontextmanager
async def listening(app: FastAPI) -> AsyncIterator[str]:
    """An app whose models run already, on a real port; gives its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.001)
    (listener,) = server.servers[0].sockets
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    await serving


async def until(condition: Callable[[], Any]) -> None:
    """Wait until something holds, 8 seconds at most."""
    async with asyncio.timeout(8.0):
        while not condition():
            await asyncio.sleep(0.001)
