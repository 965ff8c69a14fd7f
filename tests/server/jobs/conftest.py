"""Routes of files and jobs around real stores on a database of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from steerward.config import ServeConfig
from tests.server.conftest import client_of
from tests.server.jobs.serving import Serving, serving, upload


@pytest.fixture
async def served(tmp_path: Path, serve_config: ServeConfig) -> AsyncIterator[Serving]:
    async with serving(tmp_path, serve_config) as found:
        yield found


@pytest.fixture
async def client(served: Serving) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(served.app, timeout=30.0) as http:
        yield http


@pytest.fixture
async def prompts(client: httpx.AsyncClient) -> str:
    """Id of a file of prompts."""
    return await upload(client)
