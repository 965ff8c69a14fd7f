"""A server with a tiny policy that reads directions."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from tests.server.conftest import StartApp, client_of
from tests.server.generation.asking import (
    CONCISE,
)


@pytest.fixture
async def app(start_app: StartApp, policy_folder: str) -> FastAPI:
    return await start_app(
        policy=[policy_folder], profiles={"concise": CONCISE}, max_waiting_completions=200
    )


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app, timeout=60.0) as http:
        yield http
