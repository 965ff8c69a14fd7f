"""The same request sent twice is scored once: answers kept under the client's key.

A client that lost an answer, and sends its batch again under the same `Idempotency-Key`, gets the
first answer, or waits for it: work under a key goes on when its client goes away, since that has
said that it will ask again. Errors are not kept, so that trying again can help. The memory of
this process is all there is: after a restart nothing is known.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response

from steerward.metrics import Metrics
from steerward.protocol.errors import InvalidRequest

HEADER = "idempotency-key"
Outcome = Literal["first", "joined", "repeated"]
"""Computed for this request; by one that was under way; kept from one before."""

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
# What a kept answer takes besides its body.
_OVERHEAD_BYTES = 1024


@dataclass(frozen=True, slots=True)
class _Kept:
    digest: bytes
    body: bytes
    headers: tuple[tuple[str, str], ...]
    expires_at: float

    @property
    def num_bytes(self) -> int:
        return len(self.body) + _OVERHEAD_BYTES

    def response(self) -> Response:
        return Response(self.body, headers=dict(self.headers))


@dataclass(frozen=True, slots=True)
class _UnderWay:
    digest: bytes
    task: asyncio.Task[Response]


class AnswerStore:
    """Answers by key, the least recently used dropped first. Used on one event loop only.

    Args:
        max_bytes: Of all answers together.
        lifetime_s: After which a key is forgotten.
        clock: In seconds.
    """

    def __init__(
        self,
        *,
        max_bytes: int = 64 * 1024 * 1024,
        lifetime_s: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_bytes = max_bytes
        self._lifetime_s = lifetime_s
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._under_way: dict[str, _UnderWay] = {}
        self._num_bytes = 0

    @property
    def num_bytes(self) -> int:
        """Memory that kept answers take."""
        return self._num_bytes

    async def once(
        self, key: str, digest: bytes, answer: Callable[[], Coroutine[Any, Any, Response]]
    ) -> tuple[Response, Outcome]:
        """Return the answer of a key, computed if nobody has asked for it before.

        Args:
            key: Of the client.
            digest: Of all that the answer depends on.
            answer: Computes it.

        Raises:
            InvalidRequest: If the key was used for another request.
            SteerwardError: Why there is no answer, for all who wait for it.
        """
        kept = self._fresh(key)
        if kept is not None:
            _check_same(kept.digest, digest)
            self._kept.move_to_end(key)
            return kept.response(), "repeated"
        under_way = self._under_way.get(key)
        outcome: Outcome = "joined"
        if under_way is None:
            under_way = _UnderWay(digest, asyncio.create_task(answer()))
            self._under_way[key] = under_way
            under_way.task.add_done_callback(lambda _: self._finish(key, digest))
            outcome = "first"
        _check_same(under_way.digest, digest)
        # A client that goes away takes nothing with it.
        return _copy(await asyncio.shield(under_way.task)), outcome

    def _finish(self, key: str, digest: bytes) -> None:
        task = self._under_way.pop(key).task
        if task.cancelled() or task.exception() is not None:
            return
        response = task.result()
        if response.status_code == 200:
            headers = tuple(response.headers.items())
            expires_at = self._clock() + self._lifetime_s
            self._keep(key, _Kept(digest, bytes(response.body), headers, expires_at))

    def _keep(self, key: str, kept: _Kept) -> None:
        if kept.num_bytes > self._max_bytes:
            return
        self._kept[key] = kept
        self._num_bytes += kept.num_bytes
        while self._num_bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def _fresh(self, key: str) -> _Kept | None:
        kept = self._kept.get(key)
        if kept is not None and kept.expires_at <= self._clock():
            self._drop(key)
            return None
        return kept

    def _drop(self, key: str) -> None:
        self._num_bytes -= self._kept.pop(key).num_bytes


async def answered_once(
    request: Request,
    answer: Callable[[], Coroutine[Any, Any, Response]],
    *,
    store: AnswerStore,
    metrics: Metrics,
    variant: str = "",
) -> Response:
    """Return the answer to a request, computed once for each idempotency key.

    Args:
        request: With or without a key; without one the answer is computed.
        answer: Computes it.
        store: Of the server.
        metrics: Of this process.
        variant: What the answer depends on besides URL and body.

    Raises:
        InvalidRequest: If the key is malformed, or was used for another request.
        SteerwardError: Why there is no answer.
    """
    given = request.headers.get(HEADER)
    if given is None:
        return await answer()
    if not _KEY.fullmatch(given):
        raise InvalidRequest(
            f"the key has {len(given)} characters, some of which may not be in one; send 1 to 255 "
            "visible characters of ASCII, such as a UUID",
            param=HEADER,
        )
    # Whoever has another credential has other keys.
    owner = request.headers.get("authorization", "")
    key = hashlib.sha256(f"{owner}\n{given}".encode()).hexdigest()
    told = f"{request.url.path}?{request.url.query}\n{variant}\n".encode()
    digest = hashlib.sha256(told + await request.body()).digest()
    response, outcome = await store.once(key, digest, answer)
    metrics.idempotent_answers.labels(outcome).inc()
    metrics.idempotency_bytes.set(store.num_bytes)
    if outcome != "first":
        response.headers["idempotent-replayed"] = "true"
    return response


def _check_same(before: bytes, now: bytes) -> None:
    if before != now:
        raise InvalidRequest(
            "another request was sent under this key in the last minutes; send the same body "
            "again, or take a new key for each request",
            param=HEADER,
        )


def _copy(response: Response) -> Response:
    """Return a response that may be sent beside the first: sending changes it."""
    return Response(response.body, status_code=response.status_code, headers=dict(response.headers))
