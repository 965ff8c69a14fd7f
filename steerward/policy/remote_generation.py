"""Completions that come over HTTP: a task reads each stream, whoever iterates gets them merged.

Tasks and not the reader own the connections, so that a stream that comes slowly keeps no other
from being read, and the deadline ends all of them whether somebody reads or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from steerward.policy.generation import Piece
from steerward.policy.remote_stream import ChunkReader, EventParser
from steerward.policy.remote_wire import connection_error, error_of_answer
from steerward.protocol.errors import DeadlineExceeded, EngineFailure, SteerwardError

# A reader that is slower than the other server makes it wait, by TCP, when so many are unread.
_MAX_UNREAD = 256
_MAX_ERROR_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """One HTTP request of a generation."""

    path: str
    body: dict[str, Any]
    samples: tuple[int, ...]


class RemoteGeneration:
    """The completions of one request.

    Args:
        http: Connected to the other server.
        server: Its address, for errors.
        streams: What to send.
        loop_deadline: Time of the event loop at which it is given up.
        weight_version: Until an answer says another one.
        on_end: Called once, when the other server has no more to do.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        server: str,
        streams: Sequence[StreamRequest],
        loop_deadline: float,
        weight_version: str,
        on_end: Callable[[RemoteGeneration], None],
    ) -> None:
        self.weight_version = weight_version
        self.system_fingerprint = weight_version
        self._http = http
        self._server = server
        self._deadline = loop_deadline
        self._on_end = on_end
        self._unread: asyncio.Queue[Piece | None] = asyncio.Queue(_MAX_UNREAD)
        self._failure: SteerwardError | None = None
        self._is_closed = False
        self._opened = asyncio.Event()
        self._num_unopened = len(streams)
        self._readers = [ChunkReader(stream.samples, server=server) for stream in streams]
        self._running = {
            asyncio.create_task(self._run(stream, reader))
            for stream, reader in zip(streams, self._readers, strict=True)
        }
        for task in tuple(self._running):
            task.add_done_callback(self._task_done)

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the distinct prompts, as the other server counts them; known at the end."""
        return sum(reader.prompt_tokens for reader in self._readers)

    async def opened(self) -> None:
        """Return when every stream has begun.

        Raises:
            SteerwardError: Why one has not.
        """
        await self._opened.wait()
        if self._failure is not None:
            raise self._failure

    async def __aiter__(self) -> AsyncIterator[Piece]:
        """Yield the pieces of all samples as they come."""
        while not self._is_closed:
            if self._unread.empty():
                if self._failure is not None:
                    raise self._failure
                if not self._running:
                    return
            piece = await self._unread.get()
            if piece is not None:
                yield piece

    async def aclose(self) -> None:
        """Close the connections: the other server stops. May be called twice."""
        self._is_closed = True
        await self._stop()

    async def fail(self, error: SteerwardError) -> None:
        """End what is not done with an error."""
        self._fail(error)
        await self._stop()

    async def _stop(self) -> None:
        tasks = tuple(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, stream: StreamRequest, reader: ChunkReader) -> None:
        """Read one stream to its end; what goes wrong is told by `_task_done`."""
        has_begun = False
        async with (
            asyncio.timeout_at(self._deadline),
            self._http.stream("POST", stream.path, json=stream.body) as response,
        ):
            await self._check(response)
            parser = EventParser()
            async for data in response.aiter_bytes():
                for event in parser.feed(data):
                    pieces = reader.read(event)
                    if not has_begun:
                        has_begun = True
                        self._stream_has_begun(reader)
                    for piece in pieces:
                        await self._unread.put(piece)
            if (last := reader.end()) is not None:
                await self._unread.put(last)

    async def _check(self, response: httpx.Response) -> None:
        """Refuse an answer that is no stream."""
        if not response.is_success:
            raise error_of_answer(
                response.status_code,
                await _beginning(response),
                server=self._server,
                retry_after=response.headers.get("retry-after"),
            )
        kind = response.headers.get("content-type", "")
        if not kind.startswith("text/event-stream"):
            raise EngineFailure(
                f"the server {self._server} answered with {kind[:80]!r} and not with a stream of "
                "events; is it OpenAI-compatible?"
            )
        version = response.headers.get("x-weight-version", self.weight_version)
        self.weight_version = self.system_fingerprint = version

    def _stream_has_begun(self, reader: ChunkReader) -> None:
        if reader.system_fingerprint is not None:
            self.system_fingerprint = reader.system_fingerprint
        self._num_unopened -= 1
        if self._num_unopened == 0:
            self._opened.set()

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fail(self._typed(error))
            # Without the others' completions these are of no use.
            for other in self._running:
                other.cancel()
        if not self._running:
            self._opened.set()
            self._on_end(self)
        self._wake()

    def _typed(self, error: BaseException) -> SteerwardError:
        if isinstance(error, SteerwardError):
            return error
        if isinstance(error, httpx.HTTPError):
            typed: SteerwardError = connection_error(self._server, error)
        elif isinstance(error, TimeoutError):
            typed = DeadlineExceeded(
                "the completions were not done in time; ask for fewer tokens or completions, or "
                "allow more time (timeout_s)"
            )
        else:
            typed = EngineFailure(
                f"reading from {self._server} failed unexpectedly ({type(error).__name__})"
            )
        typed.__cause__ = error
        return typed

    def _fail(self, error: SteerwardError) -> None:
        if self._failure is None:
            self._failure = error
        self._opened.set()
        self._wake()

    def _wake(self) -> None:
        """Make whoever waits for a piece look again; nobody waits where there are any."""
        if self._unread.empty():
            self._unread.put_nowait(None)


async def _beginning(response: httpx.Response) -> bytes:
    content = b""
    async for data in response.aiter_bytes():
        content += data
        if len(content) > _MAX_ERROR_BYTES:
            break
    return content
