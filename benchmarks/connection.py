"""One HTTP/1.1 connection that costs next to nothing: what is timed is the server.

A client library takes a millisecond a request of the same processor that the server computes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Connection:
    """A connection that is kept open from one request to the next.

    Args:
        url: Of the server, without a path.
    """

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        assert place.hostname is not None
        self._host, self._port = place.hostname, place.port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.head = b""
        """Status line and headers of the last answer."""

    async def get(self, path: str) -> tuple[int, bytes]:
        """Return status and body of a GET."""
        return await self._request(b"GET", path, b"")

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Return status and body of a POST of JSON."""
        return await self._request(b"POST", path, body)

    async def _request(self, method: bytes, path: str, body: bytes) -> tuple[int, bytes]:
        head = (
            f" {path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        message = method + head.encode() + body
        # A server closes what has been idle for some seconds, maybe just now: then once more.
        is_new = await self._open()
        try:
            return await self._exchange(message)
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            await self.close()
            if is_new or getattr(error, "partial", b""):
                raise
        await self._open()
        return await self._exchange(message)

    async def _open(self) -> bool:
        if self._streams is not None and not self._streams[0].at_eof():
            return False
        await self.close()
        self._streams = await asyncio.open_connection(self._host, self._port)
        return True

    async def _exchange(self, message: bytes) -> tuple[int, bytes]:
        assert self._streams is not None
        reader, writer = self._streams
        writer.write(message)
        head = self.head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        length = _LENGTH.search(head)
        if length is None:
            raise RuntimeError("the answer does not say its length")
        body = await reader.readexactly(int(length[1]))
        if b"connection: close" in head.lower():
            await self.close()
        return status, body

    async def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            _, writer = self._streams
            self._streams = None
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
