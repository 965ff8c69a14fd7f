"""Answers as server-sent events: chunks as completions come, in OpenAI's shapes."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from steerward.metrics import Metrics
from steerward.policy.steering import Part
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
        observed: To be written.
        head: What all chunks say.
        shape: Of the chunks.
        has_usage: Whether the usage is told at the end.
        metrics: Of this process.
    """

    def __init__(
        self,
        observed: ObservedGeneration,
        *,
        head: Mapping[str, Any],
        shape: AnswerShape,
        has_usage: bool,
        metrics: Metrics,
    ) -> None:
        self._observed = observed
        self._shape = shape
        self._metrics = metrics
        self._has_usage = has_usage
        self._head = {**head, "usage": None} if has_usage else dict(head)
        self._steering: dict[str, Any] | None = steering_used(observed.generation.report, None)

    async def events(self) -> AsyncGenerator[bytes]:
        """Yield the events; what fails on the way becomes the last one."""
        try:
            for index in range(self._observed.num_choices):
                if (choice := self._shape.opening(index)) is not None:
                    yield self._chunk(choice)
            last: Part | None = None
            num_open = self._observed.num_choices
            async for part in self._observed:
                if part.text or part.logprobs:
                    yield self._chunk(self._shape.piece(part.index, part.text, part.logprobs))
                if part.finish_reason is not None:
                    num_open -= 1
                    if num_open:
                        yield self._chunk(self._closing(part))
                    else:
                        last = part
            # Held back until here: who scored the completions is known for certain now.
            assert last is not None
            generation = self._observed.generation
            self._steering = steering_used(generation.report, generation.ranking)
            yield self._chunk(self._closing(last))
            if self._has_usage:
                yield _event({**self._head, "choices": [], "usage": usage(generation)})
            yield _DONE
        except SteerwardError as error:
            self._metrics.refusals.labels(error.code).inc()
            yield b"data: " + json.dumps(error.to_body()).encode() + b"\n\n"

    def _closing(self, part: Part) -> dict[str, Any]:
        assert part.finish_reason is not None
        return self._shape.closing(part.index, part.finish_reason, choice_reward(part.reward))

    def _chunk(self, choice: Mapping[str, Any]) -> bytes:
        content = {**self._head, "choices": [choice]}
        if self._steering is not None:
            content["steering"], self._steering = self._steering, None
        return _event(content)


def _event(content: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(content) + b"\n\n"
