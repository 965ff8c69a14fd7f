"""Callers of a server that each wait for their answer, and what the server counted for them."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.connection import Connection
from benchmarks.protocols_wire import NAME, Protocol
from benchmarks.workload import Item

_COMPUTED = re.compile(
    rf'^steerward_computed_tokens_total{{model="{NAME}"}} (\S+)', flags=re.MULTILINE
)


class Callers:
    """Callers with a connection each.

    Args:
        url: Of the server.
        count: Each sends the next request when it has its answer.
    """

    def __init__(self, url: str, *, count: int) -> None:
        self._runner = asyncio.Runner()
        self._connections = [Connection(url) for _ in range(count)]

    @property
    def computed_tokens(self) -> int:
        """Tokens that forward passes of the server computed so far."""
        _, text = self._runner.run(self._connections[0].get("/metrics"))
        found = _COMPUTED.search(text.decode())
        return int(float(found[1])) if found else 0

    def post(self, path: str, bodies: Sequence[bytes]) -> list[bytes]:
        """Return the answers to bodies, in order.

        Raises:
            RuntimeError: If one is an error.
        """
        return self._runner.run(self._post(path, bodies))

    async def _post(self, path: str, bodies: Sequence[bytes]) -> list[bytes]:
        waiting = iter(enumerate(bodies))
        answers = [b""] * len(bodies)

        async def caller(connection: Connection) -> None:
            for place, body in waiting:
                status, answers[place] = await connection.post(path, body)
                if status != 200:
                    raise RuntimeError(f"{path} answered {status}: {answers[place][:300]!r}")

        await asyncio.gather(*map(caller, self._connections))
        return answers

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            self._runner.run(connection.close())
        self._runner.close()


def bodies_of(protocol: Protocol, requests: Sequence[Sequence[Item]]) -> list[bytes]:
    """Return the bodies of requests, each of which asks for some items."""
    return [json.dumps(protocol.body(items)).encode() for items in requests]


def numbers_of(protocol: Protocol, answers: Sequence[bytes]) -> list[float]:
    """Return the numbers that the client of a protocol reads, request after request."""
    return [number for answer in answers for number in protocol.read(json.loads(answer))]


def reordered(items: Sequence[Item], *, seed: str) -> list[Item]:
    """Return items whose texts have the same words in another order.

    They are as long as before, and nothing that was kept of others is of use for them.
    """
    source = random.Random(seed)

    def text(words: str) -> str:
        parts = words.split(" ")
        return " ".join(source.sample(parts, len(parts)))

    return [
        replace(item, prompt=text(item.prompt), candidates=[text(one) for one in item.candidates])
        for item in items
    ]
