"""The bare connection reads whole answers, and comes back when it was closed."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.connection import Connection

ANSWER = b"HTTP/1.1 429 Too Many\r\nContent-Length: 2\r\n\r\nno"


async def answered(*, closes: bool, requests: int) -> list[tuple[int, bytes]]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            writer.write(ANSWER)
            if closes:
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    connection = Connection(f"http://{host}:{port}")
    found = [await connection.post("/x", b"{}") for _ in range(requests)]
    await connection.close()
    server.close()
    return found


@pytest.mark.parametrize("closes", [False, True])
def test_answers_are_read_from_one_request_to_the_next(closes: bool) -> None:
    assert asyncio.run(answered(closes=closes, requests=3)) == [(429, b"no")] * 3
