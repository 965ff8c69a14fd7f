from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steerward.policy.generation import GenerationRequest, Piece, Prompt, Sampling
from steerward.policy.local.checkpoint import LocalCheckpoint, load_policy
from steerward.policy.local.policy import LocalPolicy
from tests.policies import save_policy


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("policy") / "tiny")


@pytest.fixture
def checkpoint(policy_folder: Path) -> LocalCheckpoint:
    return load_policy(str(policy_folder), device="cpu")


def make_policy(checkpoint: LocalCheckpoint, **changes: Any) -> LocalPolicy:
    options: dict[str, Any] = {
        "name": "tiny",
        "max_running": 8,
        "max_waiting": 64,
        "cache_bytes": 1 << 30,
    }
    return LocalPolicy(checkpoint, **(options | changes))


async def started(policy: LocalPolicy) -> LocalPolicy:
    policy.start()
    await policy.wait_until_ready()
    return policy


def ask(text: str = "Hello, how are you?", **sampling: Any) -> GenerationRequest:
    return ask_all([text], **sampling)


def ask_all(texts: list[str], *, variant: str | None = None, **sampling: Any) -> GenerationRequest:
    prompts = [Prompt(({"role": "user", "content": text},)) for text in texts]
    deadline = time.perf_counter() + sampling.pop("timeout_s", 60)
    return GenerationRequest(prompts, Sampling(**sampling), deadline, variant)


async def pieces(policy: LocalPolicy, request: GenerationRequest) -> list[Piece]:
    return [piece async for piece in await policy.begin(request)]


async def texts(policy: LocalPolicy, request: GenerationRequest) -> list[str]:
    found = [""] * len(request.prompts)
    for piece in await pieces(policy, request):
        found[piece.index] += piece.text
    return found


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)
