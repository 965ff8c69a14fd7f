"""Requests that arrive when they arrive, whether the server keeps up or not.

Latency is counted from the moment that a request was due, so that a stalled server cannot hide
behind clients that wait for it.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.connection import Connection

OK, TOO_MANY, LATE = 200, 429, 504


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request."""

    status: int
    seconds: float
    """From the moment it was due until its answer was read."""


async def poisson(
    url: str, bodies: Sequence[dict[str, Any]], *, rate: float, seed: int
) -> list[Outcome]:
    """Return the outcomes of requests that arrive at random, `rate` a second on average."""
    source = random.Random(seed)
    idle: list[Connection] = []
    encoded = [json.dumps(body).encode() for body in bodies]

    async def one(due: float, body: bytes) -> Outcome:
        connection = idle.pop() if idle else Connection(url)
        status, _ = await connection.post("/v1/score", body)
        idle.append(connection)
        return Outcome(status, time.perf_counter() - due)

    due = time.perf_counter()
    tasks: list[asyncio.Task[Outcome]] = []
    for body in encoded:
        due += source.expovariate(rate)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due, body)))
    outcomes = await asyncio.gather(*tasks)
    for connection in idle:
        await connection.close()
    return outcomes


async def capacity(url: str, bodies: Sequence[dict[str, Any]], *, clients: int) -> float:
    """Return the requests a second of clients that each wait for their answer.

    Raises:
        RuntimeError: If one is not answered with scores.
    """
    waiting = iter([json.dumps(body).encode() for body in bodies])

    async def client() -> None:
        connection = Connection(url)
        for body in waiting:
            status, answer = await connection.post("/v1/score", body)
            if status != OK:
                raise RuntimeError(f"the server answered {status}: {answer[:200]!r}")
        await connection.close()

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return len(bodies) / (time.perf_counter() - started)
