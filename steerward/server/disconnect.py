"""Work for a client ends when the client goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

ResultT = TypeVar("ResultT")

# The client's own code for a caller that has gone; nobody reads it but the log.
_CLIENT_CLOSED_REQUEST = 499


async def unless_disconnected(
    answering: Coroutine[Any, Any, ResultT], request: Request
) -> ResultT | None:
    """Return the result, or None if the client went away first; its work is then cancelled."""
    working = asyncio.create_task(answering)
    leaving = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


def gone() -> Response:
    """Return the answer to a client that is not there to read it."""
    return Response(status_code=_CLIENT_CLOSED_REQUEST)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
