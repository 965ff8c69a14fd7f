"""Far more requests than the device can do: those let in are answered, the rest refused early."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from steerward.engine.engine import Engine
from steerward.engine.served import Scored
from steerward.protocol.errors import DeadlineExceeded, Overloaded
from tests.engine.conftest import StartEngine, request

pytestmark = pytest.mark.anyio


def slow_down(engine: Engine, seconds: float) -> None:
    """Make each pass of the real device take so much longer, whatever the machine does."""
    engine.model.backbone.register_forward_pre_hook(lambda *_: time.sleep(seconds))


def some_request(number: int, rng: random.Random, **fields: Any) -> Any:
    candidates = ["word " * rng.randint(5, 40) for _ in range(rng.choice([1, 1, 2, 8]))]
    return request(items=[{"prompt": f"prompt {number}", "candidates": candidates}], **fields)


async def outcome(scoring: Coroutine[Any, Any, Scored]) -> Exception | None:
    try:
        await scoring
    except Exception as error:
        return error
    return None


async def test_every_admitted_request_is_answered_in_time(start_engine: StartEngine) -> None:
    """Requests with time-outs of 1.5 to 4 s, for several times what the device can do.

    A machine that stops for a second, or turns half as fast, breaks what was promised before: a
    fiftieth may be late here. Without admission most would be.
    """
    engine = await start_engine(max_batch_tokens=128)
    slow_down(engine, 0.06)
    rng = random.Random(0)
    for number in range(5):
        await engine.score(some_request(-number, rng))
    most_queued = 0
    tasks: list[asyncio.Task[Exception | None]] = []
    for number in range(400):
        one = some_request(number, rng, timeout_s=rng.uniform(1.5, 4.0))
        tasks.append(asyncio.create_task(outcome(engine.score(one))))
        await asyncio.sleep(0.008)
        most_queued = max(most_queued, engine.queued_tokens)
    outcomes = await asyncio.gather(*tasks)
    refused = [one for one in outcomes if isinstance(one, Overloaded)]
    late = [one for one in outcomes if isinstance(one, DeadlineExceeded)]
    assert outcomes.count(None) + len(refused) + len(late) == len(outcomes)
    assert len(late) <= len(outcomes) // 50
    assert outcomes.count(None) > 30
    assert len(refused) > 100
    assert all(1.0 <= (error.retry_after_s or 0.0) <= 60.0 for error in refused)
    # What 4 s take at the speed of an ideal device, and not the limit of a million.
    assert most_queued < 4.0 * 128 / 0.06
    assert engine.queued_tokens == 0


async def test_refusal_names_wait_time_left_and_way_out(start_engine: StartEngine) -> None:
    engine = await start_engine(max_batch_tokens=64)
    slow_down(engine, 0.1)
    await engine.score(request())
    items = [{"prompt": f"p {i}", "candidates": ["word " * 40]} for i in range(20)]
    long = asyncio.create_task(engine.score(request(items=items)))
    while not engine._worker.queued_tokens:
        await asyncio.sleep(0.001)
    with pytest.raises(Overloaded, match=r"may take \d+\.\d s and 0\.2 s are left.*timeout_s"):
        await engine.score(request(timeout_s=0.2))
    # One that may take its time, and lets the long one keep its own, is let in.
    assert (await engine.score(request())).answer["items"]
    await long


async def test_idle_device_takes_what_it_cannot_do_in_time(start_engine: StartEngine) -> None:
    """Refused with 429 it would be told to come again, and no later try is better."""
    engine = await start_engine(max_batch_tokens=64)
    slow_down(engine, 0.05)
    await engine.score(request())
    items = [{"prompt": f"p {i}", "candidates": ["word " * 40]} for i in range(60)]
    with pytest.raises(DeadlineExceeded):
        await engine.score(request(items=items, timeout_s=0.2))


async def test_small_request_is_answered_before_a_stream_of_large_ones(
    start_engine: StartEngine,
) -> None:
    engine = await start_engine(max_batch_tokens=256)
    slow_down(engine, 0.02)
    large = [
        asyncio.create_task(
            engine.score(request(items=[{"prompt": f"p {i}", "candidates": ["word " * 30] * 32}]))
        )
        for i in range(10)
    ]
    while not engine._worker.queued_tokens:
        await asyncio.sleep(0.001)
    await engine.score(request())
    assert sum(task.done() for task in large) <= 1
    await asyncio.gather(*large)
