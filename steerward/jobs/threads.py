"""Blocking work that is never left to itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

ResultT = TypeVar("ResultT")
ParametersT = ParamSpec("ParametersT")


async def in_thread(
    function: Callable[ParametersT, ResultT],
    *args: ParametersT.args,
    **kwargs: ParametersT.kwargs,
) -> ResultT:
    """Return what a function gives in a thread; if cancelled, wait for its end all the same.

    A thread cannot be stopped. Whoever goes on after a cancellation may rely on it that nothing
    is written or served behind its back.
    """
    working = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    cancelled: asyncio.CancelledError | None = None
    while not working.done():
        try:
            await asyncio.wait([working])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        working.exception()  # Looked at: nobody else will.
        raise cancelled
    return working.result()
