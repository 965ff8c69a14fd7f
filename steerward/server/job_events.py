"""Events of a job as server-sent events, from the first to the last, in the order of time."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from steerward.jobs.desk import JobDesk, JobNews
from steerward.protocol.errors import SteerwardError
from steerward.server.disconnect import unless_disconnected

_KEEP_ALIVE = b": still here\n\n"


class JobFollower:
    """Looks again and again for what is new of a job; other servers may be the ones that write it.

    Args:
        desk: That knows the job.
        job_id: Of the job.
        look_every_s: Pause between two looks.
        keep_alive_s: Silence after which a comment tells that the connection lives.
    """

    def __init__(
        self, desk: JobDesk, job_id: str, *, look_every_s: float = 0.3, keep_alive_s: float = 15.0
    ) -> None:
        self._desk = desk
        self._job_id = job_id
        self._look_every_s = look_every_s
        self._keep_alive_s = keep_alive_s

    async def begin(self, *, after: str | None) -> AsyncGenerator[bytes]:
        """Look for the first time, and return the events.

        Args:
            after: Id of the last event that the client has.

        Raises:
            NotFound: If there is no such job, or no such event.
        """
        return self._events(await self._desk.news(self._job_id, after=after), after)

    async def _events(self, news: JobNews, last_id: str | None) -> AsyncGenerator[bytes]:
        """Yield the events; what fails on the way becomes the last one."""
        # Some proxies show the client nothing of an answer before its first byte.
        yield _KEEP_ALIVE
        spoke_at = time.monotonic()
        was_quiet_end = False
        try:
            # The job's last event comes a moment after its last status: an end is looked at twice.
            while not (news.is_quiet_end and was_quiet_end):
                was_quiet_end = news.is_quiet_end
                for event in news.events:
                    last_id = event.id
                    yield _event(event.type, event, event_id=event.id)
                    spoke_at = time.monotonic()
                if not news.events:
                    if time.monotonic() - spoke_at >= self._keep_alive_s:
                        yield _KEEP_ALIVE
                        spoke_at = time.monotonic()
                    await self._desk.followers.rest(self._look_every_s)
                if self._desk.followers.is_draining:
                    return  # The client comes back with the id of its last event.
                news = await self._desk.news(self._job_id, after=last_id)
            yield _event("done", news.job)
        except SteerwardError as error:
            yield b"event: error\ndata: " + json.dumps(error.to_body()).encode() + b"\n\n"


class JobEventStream(StreamingResponse):
    """Sends the events of a job until they end or the client goes.

    Args:
        events: To be sent.
        places: Left when the stream ends.
    """

    def __init__(self, events: AsyncGenerator[bytes], places: ExitStack) -> None:
        # Proxies must not wait for more, and nobody may keep it.
        unbuffered = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(events, headers=unbuffered, media_type="text/event-stream")
        self._events = events
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        with self._places:
            try:
                sending = self.stream_response(send)
                await unless_disconnected(sending, Request(scope, receive))
            finally:
                await self._events.aclose()


def _event(kind: str, content: BaseModel, *, event_id: str | None = None) -> bytes:
    head = f"id: {event_id}\nevent: {kind}\n" if event_id is not None else f"event: {kind}\n"
    return head.encode() + b"data: " + orjson.dumps(content.model_dump()) + b"\n\n"
