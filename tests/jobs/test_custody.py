"""One run of a job at a time in its folder, and threads that nothing is left to."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from steerward.jobs.custody import LOCK_FILE, sole_use, sole_use_now
from steerward.jobs.threads import in_thread

pytestmark = pytest.mark.anyio

HOLD = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.readline()
"""


async def test_a_frozen_process_is_waited_for_and_its_end_lets_go(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path / LOCK_FILE)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        told: list[str] = []

        async def use() -> None:
            async with sole_use(tmp_path, on_wait=lambda: told.append("waits")):
                return

        waiting = asyncio.create_task(use())
        await asyncio.sleep(0.6)
        assert not waiting.done()
        assert told == ["waits"]
        other.kill()
        await asyncio.wait_for(waiting, 10)


async def test_a_process_that_inherits_the_lock_is_waited_for(tmp_path: Path) -> None:
    wait = [sys.executable, "-c", "input()"]
    async with sole_use(tmp_path, on_wait=lambda: None) as lock:
        trainer = subprocess.Popen(wait, stdin=subprocess.PIPE, pass_fds=[lock])
    with trainer:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), sole_use(tmp_path, on_wait=lambda: None):
                raise AssertionError("both have it")
        trainer.kill()
    async with sole_use(tmp_path, on_wait=lambda: pytest.fail("it is free")):
        pass


async def test_two_runs_in_one_process_exclude_each_other(tmp_path: Path) -> None:
    async with sole_use(tmp_path, on_wait=lambda: None):
        second = sole_use(tmp_path, on_wait=lambda: None)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), second:
                raise AssertionError("both have it")
    async with sole_use(tmp_path, on_wait=lambda: pytest.fail("it is free")):
        pass


async def test_a_cancelled_call_ends_with_its_thread() -> None:
    begun, ended = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        time.sleep(0.2)
        ended.set()

    running = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(begun.wait)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended.is_set()


async def test_a_call_gives_what_its_function_gives() -> None:
    assert await in_thread(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await in_thread(divmod, 7, 0)


def test_what_is_held_is_not_waited_for(tmp_path: Path) -> None:
    with sole_use_now(tmp_path) as mine:
        assert mine
        with sole_use_now(tmp_path) as other:
            assert not other
    with sole_use_now(tmp_path) as again:
        assert again
