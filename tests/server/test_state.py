"""What the routes share."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from steerward.engine.engine import Engine
from steerward.protocol.errors import NotReady
from steerward.protocol.scoring import ScoreRequest
from tests.server.conftest import BODY, StartApp

pytestmark = pytest.mark.anyio


async def until(condition: Any) -> None:
    async with asyncio.timeout(8.0):
        while not condition():
            await asyncio.sleep(0.001)


def hold_device(engine: Engine, release: threading.Event) -> threading.Event:
    """Make the device wait in its next batch; return what is set when it is there."""
    is_held = threading.Event()

    def hold(*_: Any) -> None:
        is_held.set()
        release.wait(60.0)

    engine.model.backbone.register_forward_pre_hook(hold)
    return is_held


async def test_engines_are_closed_together_and_each_answers_what_waits(
    start_app: StartApp,
) -> None:
    """They were closed one after another, each waiting up to 10 s for its batch."""
    state = (await start_app("armorm", "seqcls-llama-1")).state.steerward
    request = ScoreRequest.model_validate({"items": BODY["items"]})
    other = ScoreRequest.model_validate({"items": [{"prompt": "Other.", "candidates": ["One."]}]})
    release = threading.Event()
    engines: list[Engine] = [model.current for model in state.engines.values()]
    running: list[asyncio.Task[Any]] = []
    waiting: list[asyncio.Task[Any]] = []
    for engine in engines:
        is_held = hold_device(engine, release)
        running.append(asyncio.create_task(engine.score(request)))
        await until(is_held.is_set)
        waiting.append(asyncio.create_task(engine.score(other)))
        await until(lambda engine=engine: engine._worker.queued_tokens)
    closing = asyncio.create_task(state.close())
    try:
        await until(lambda: all("has stopped" in engine.reason for engine in engines))
        assert not closing.done()
    finally:
        release.set()
    await closing
    for task in waiting:
        with pytest.raises(NotReady):
            await task
    for task in running:
        assert (await task).answer["items"]
