"""What is measured of a generation, whatever ends it."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from typing import Self

from steerward.metrics import Metrics
from steerward.policy.steering import Part, SteeredGeneration
from steerward.protocol.errors import SteerwardError


class ObservedGeneration:
    """The parts of a generation, on a clock, and its tokens in the metrics when it is closed.

    Args:
        generation: To be read.
        model: Name of the policy or variant.
        num_choices: That it returns.
        metrics: Of this process.
        began_at: `time.perf_counter()` of the request.
        on_close: Called once, when it is closed.
    """

    def __init__(
        self,
        generation: SteeredGeneration,
        *,
        model: str,
        num_choices: int,
        metrics: Metrics,
        began_at: float,
        on_close: Callable[[], None],
    ) -> None:
        self.generation = generation
        self.model = model
        self.num_choices = num_choices
        self.first_part_s: float | None = None
        self._parts = aiter(generation)
        self._held: Part | None = None
        self._num_open = num_choices
        self._metrics = metrics
        self._began_at = began_at
        self._on_close = on_close
        self._ending = "closed"
        self._is_closed = False

    @property
    def elapsed_s(self) -> float:
        """Since the request came."""
        return time.perf_counter() - self._began_at

    async def wait_for_first(self) -> None:
        """Return when there is something to send; what fails before can still be an answer.

        Raises:
            SteerwardError: Why there is nothing.
        """
        self._held = await anext(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Part:
        """Return the next part.

        Raises:
            SteerwardError: Why there are no more.
        """
        if self._held is not None:
            part, self._held = self._held, None
            return part
        try:
            part = await anext(self._parts)
        except SteerwardError:
            self._ending = "error"
            raise
        self._observe(part)
        return part

    def _observe(self, part: Part) -> None:
        if self.first_part_s is None:
            self.first_part_s = self.elapsed_s
            self._metrics.time_to_first_token.labels(self.model).observe(self.first_part_s)
        if part.finish_reason is not None:
            self._metrics.completions.labels(self.model, part.finish_reason).inc()
            self._num_open -= 1
            if not self._num_open:
                self._metrics.completion_duration.labels(self.model).observe(self.elapsed_s)

    async def aclose(self) -> None:
        """Give up what is not done, and count what it cost. May be called twice."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            if isinstance(self._parts, AsyncGenerator):
                await self._parts.aclose()
            await self.generation.aclose()
        finally:
            self._on_close()
            self._metrics.completion_tokens.labels(self.model).inc(
                self.generation.completion_tokens
            )
            if self._num_open:
                self._metrics.completions.labels(self.model, self._ending).inc(self._num_open)
