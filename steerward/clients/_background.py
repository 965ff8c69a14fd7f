"""One event loop in a thread of its own, that carries the requests of every adapter.

Trainers call rewards from threads, from event loops that live for one step only, and from child
processes. Connections that are kept alive belong to one loop, so it is ours. Each process has its
own, made when it is first used: nothing of it is ever pickled, and a forked child starts anew.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from steerward.clients._batch import BatchClient, Connection

ResultT = TypeVar("ResultT")

_STOP_S = 2.0


class Background:
    """The loop of this process, and the clients that it holds."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._clients: dict[Connection, BatchClient] = {}
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="steerward-rewards", daemon=True
        )
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, ResultT]) -> concurrent.futures.Future[ResultT]:
        """Run a coroutine on the loop; its future can be waited for from anywhere."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def client(self, connection: Connection) -> BatchClient:
        """Return the client of a server, for coroutines on this loop."""
        found = self._clients.get(connection)
        if found is None:
            found = self._clients[connection] = BatchClient(connection)
        return found

    def stop(self) -> None:
        """Close all connections, and end the thread."""
        with contextlib.suppress(TimeoutError):
            self.start(self._close()).result(timeout=_STOP_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=_STOP_S)
        if not self._thread.is_alive():
            self._loop.close()

    async def _close(self) -> None:
        for client in self._clients.values():
            await client.close()


class _Process:
    """What this process has; a fork replaces it, since a lock may be held and no thread lives."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.background: Background | None = None


_process = _Process()
# Of parents, kept alive: their loops must not be closed by a child's collector.
_before_fork: list[_Process] = []


def background() -> Background:
    """Return the background of this process; it starts with the first call."""
    with _process.lock:
        if _process.background is None:
            _process.background = Background()
        return _process.background


def _start_anew() -> None:
    global _process
    _before_fork.append(_process)
    _process = _Process()


def _stop() -> None:
    if _process.background is not None:
        _process.background.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
atexit.register(_stop)
