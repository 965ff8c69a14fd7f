"""When requests are held, and when all have ended."""

from __future__ import annotations

import asyncio

import pytest

from steerward.protocol.errors import DeadlineExceeded
from steerward.server.pause import Pause
from tests.server.conftest import until

pytestmark = pytest.mark.anyio


async def test_requests_run_unless_paused() -> None:
    pause = Pause()
    async with pause.running(5.0) as left_s:
        assert left_s == 5.0
        assert pause.num_running == 1
    assert pause.num_running == 0


async def test_held_request_runs_after_the_pause_with_the_time_that_is_left() -> None:
    pause = Pause()
    pause.begin()

    async def run() -> float:
        async with pause.running(5.0) as left_s:
            return left_s

    held = asyncio.create_task(run())
    await until(lambda: pause.num_held)
    assert pause.num_running == 0
    pause.end()
    assert 0.0 < await held < 5.0
    assert pause.num_held == 0


async def test_request_is_held_no_longer_than_its_time() -> None:
    pause = Pause()
    pause.begin()
    with pytest.raises(DeadlineExceeded, match="paused for all"):
        await pause.enter(0.01)
    assert (pause.num_held, pause.num_running) == (0, 0)


async def test_pause_that_follows_at_once_holds_the_same_requests() -> None:
    """Waiters are woken by the end of the first pause, and must see the second."""
    pause = Pause()
    pause.begin()
    held = asyncio.create_task(pause.enter(5.0))
    await until(lambda: pause.num_held)
    pause.end()
    pause.begin()
    await asyncio.sleep(0.01)
    assert not held.done()
    pause.end()
    await held


async def test_idle_is_when_the_last_one_has_left() -> None:
    pause = Pause()
    await pause.enter(1.0)
    await pause.enter(1.0)
    pause.begin()
    waiting = asyncio.create_task(pause.wait_until_idle(5.0))
    pause.leave()
    await asyncio.sleep(0)
    assert not waiting.done()
    pause.leave()
    await waiting
    await pause.wait_until_idle(0.1)


async def test_end_of_the_pause_ends_the_wait_for_it() -> None:
    pause = Pause()
    await pause.enter(1.0)
    pause.begin()
    waiting = asyncio.create_task(pause.wait_until_idle(5.0))
    await asyncio.sleep(0)
    pause.end()
    await waiting


async def test_wait_for_requests_that_do_not_end_has_an_end() -> None:
    pause = Pause()
    await pause.enter(1.0)
    pause.begin()
    with pytest.raises(DeadlineExceeded, match="1 requests still run"):
        await pause.wait_until_idle(0.01)
    assert pause.is_on
