"""The client of the adapters: scores within a deadline, with a key that retries repeat."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from steerward.clients import _wire
from steerward.clients._async import AsyncClient
from steerward.clients._wire import Call
from steerward.protocol.errors import DeadlineExceeded, SteerwardError
from steerward.protocol.scoring import ScoreResponse

# Requests in flight of one process: more would only wait at the server.
_MOST_IN_FLIGHT = 64
# The deadline ends the retries, not their number: a server may take minutes to come back. From
# this attempt on, the pauses stay as they are.
_LONGEST_PAUSE_FROM = 16


@dataclass(frozen=True, slots=True)
class Connection:
    """A server, and how long it is waited for."""

    url: str
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 120.0
    """Longest wait for an answer, an attempt."""
    deadline_s: float = 300.0
    """Longest time that a batch may take, with all retries and the pauses between them."""


class BatchClient(AsyncClient):
    """Scores batches of one trainer."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(
            connection.url,
            api_key=connection.api_key,
            timeout_s=connection.timeout_s,
            max_retries=_LONGEST_PAUSE_FROM,
        )
        self._connection = connection
        # The deadline also limits the pauses, whatever the server asks for.
        self._retry = _wire.Retry(_LONGEST_PAUSE_FROM, longest_retry_after_s=math.inf)
        self._places = asyncio.Semaphore(_MOST_IN_FLIGHT)

    def deadline(self) -> float:
        """Return when a batch that starts now must be done, by the clock of the running loop."""
        return asyncio.get_running_loop().time() + self._connection.deadline_s

    async def score_batch(
        self, items: Sequence[dict[str, Any]], *, nonce: str, ends_at: float, **options: Any
    ) -> ScoreResponse:
        """Score items; retries of the call have the same idempotency key.

        Args:
            items: As for `score_items`.
            nonce: Of this call; another call with the same items has another.
            ends_at: When there must be scores, by the clock of the loop; `deadline` gives it.
            options: As for `score_items`.

        Raises:
            DeadlineExceeded: If there are no scores in time.
            SteerwardError: What the server failed with.
        """
        call = _wire.score_call(items, **options)
        digest = hashlib.sha256(call.content or b"").hexdigest()[:32]
        headers = {**call.headers, "idempotency-key": f"{nonce}-{digest}"}
        failures: list[SteerwardError] = []
        try:
            async with asyncio.timeout_at(ends_at), self._places:
                return await self._keep_trying(replace(call, headers=headers), failures)
        except TimeoutError:
            raise self._out_of_time(failures) from (failures[-1] if failures else None)

    async def _keep_trying(
        self, call: Call[ScoreResponse], failures: list[SteerwardError]
    ) -> ScoreResponse:
        while True:
            try:
                return await self._send(call)
            except SteerwardError as error:
                failures.append(error)
                attempt = min(len(failures), _LONGEST_PAUSE_FROM)
                delay_s = self._retry.delay_s(error, attempt)
                if delay_s is None:
                    raise
            await asyncio.sleep(delay_s)

    def _out_of_time(self, failures: Sequence[SteerwardError]) -> DeadlineExceeded:
        connection = self._connection
        last = f"; the last of {len(failures)} attempts: {failures[-1]}" if failures else ""
        return DeadlineExceeded(
            f"no scores from {connection.url} within {connection.deadline_s:g} s{last}; raise "
            "deadline_s, or start the server with more replicas"
        )
