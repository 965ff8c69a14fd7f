"""Answers as server-sent events: chunks as completions come, in OpenAI's shapes."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from steerward.metrics import Metrics
from steerward.protocol.errors import SteerwardError
from steerward.server.disconnect import unless_disconnected
from steerward.server.generation import choice_reward, steering_used, usage
from steerward.server.observation import ObservedGeneration
from steerward.server.shapes import AnswerShape

logger = logging.getLogger(__name__)

_DONE = b"data: [DONE]\n\n"
# For the error that the deadline makes to reach a client that reads.
_GRACE_S = 1.0


class EventStream(StreamingResponse):
    """Sends events until they end, the client goes, or its deadline has passed.

    A client that does not read holds up its own events and nothing else; one that still does not
    when the deadline has passed is cut off. Whatever ends it, the generation is closed.

    Args:
        events: To be sent.
        observed: Where they come from.
        deadline: `time.perf_counter()` at which the generation ends.
        headers: Of the answer.
    """

    def __init__(
        self,
        events: AsyncGenerator[bytes],
        *,
        observed: ObservedGeneration,
        deadline: float,
        headers: Mapping[str, str],
    ) -> None:
        # Proxies must not wait for more, and nobody may keep it.
        unbuffered = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(events, headers={**headers, **unbuffered}, media_type="text/event-stream")
        self._events = events
        self._observed = observed
        self._deadline = deadline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await unless_disconnected(self._send(send), Request(scope, receive))
        finally:
            await self._events.aclose()
            await self._observed.aclose()

    async def _send(self, send: Send) -> None:
        left_s = max(0.0, self._deadline - time.perf_counter())
        try:
            async with asyncio.timeout(left_s + _GRACE_S):
                await self.stream_response(send)
        except TimeoutError:
            logger.info("a client did not read its events until the deadline; cut off")


class EventWriter:
    """Writes the parts of one generation as events.

    Args:
        shape: Of the chunks.
        has_usage: Whether the usage is told at the end.
        metrics: Of this process.
    """

    def __init__(self, shape: AnswerShape, *, has_usage: bool, metrics: Metrics) -> None:
        self.shape = shape
        self._has_usage = has_usage
        self._metrics = metrics

    async def events(
        self, observed: ObservedGeneration, head: Mapping[str, Any]
    ) -> AsyncGenerator[bytes]:
        """Yield the events; what fails on the way becomes the last one.

        Args:
            observed: To be written.
            head: What all chunks say.
        """
        head = {**head, "usage": None} if self._has_usage else head
        generation = observed.generation
        # In whichever chunk is the first; and again in the last, when it is complete.
        more = {"steering": steering_used(generation.report, None)}
        try:
            async with aclosing(self._choices(observed)) as choices:
                async for choice, is_last in choices:
                    if is_last:
                        more = {"steering": steering_used(generation.report, generation.ranking)}
                    yield _event({**head, "choices": [choice], **more})
                    more = {}
            if self._has_usage:
                yield _event({**head, "choices": [], "usage": usage(generation)})
            yield _DONE
        except SteerwardError as error:
            self._metrics.refusals.labels(error.code).inc()
            yield b"data: " + json.dumps(error.to_body()).encode() + b"\n\n"

    async def _choices(
        self, observed: ObservedGeneration
    ) -> AsyncGenerator[tuple[dict[str, Any], bool]]:
        """Yield what is new of choices, and whether it is the end: that only when all is over."""
        for index in range(observed.num_choices):
            if (choice := self.shape.opening(index)) is not None:
                yield choice, False
        num_open, last = observed.num_choices, None
        async for part in observed:
            if part.text or part.logprobs:
                yield self.shape.piece(part.index, part.text, part.logprobs), False
            if part.finish_reason is not None:
                num_open -= 1
                reward = choice_reward(part.reward)
                last = self.shape.closing(part.index, part.finish_reason, reward)
                if num_open:
                    yield last, False
        assert last is not None
        yield last, True


def _event(content: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(content) + b"\n\n"
