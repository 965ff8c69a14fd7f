"""A policy and a reward model that do what a test says, when it says so: both are ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from steerward.policy.generation import Piece
from steerward.policy.steering_types import Ranking, Reward
from steerward.protocol.errors import DeadlineExceeded
from tests.policy.steering.models import TURNS

VALUES = (3.0, 1.0, 5.0, 2.0, 4.0, 0.0)
"""Scores of the samples; their texts spell them."""


class Drawing:
    """A generation whose completions end when a test says so."""

    weight_version = "policy-1"
    system_fingerprint = "fp"
    prompt_tokens = 3

    def __init__(self) -> None:
        self.num_samples = 0
        self._pieces: asyncio.Queue[Piece | Exception | None] = asyncio.Queue()

    def end(self, *samples: int) -> None:
        for sample in samples:
            self._pieces.put_nowait(Piece(sample, str(VALUES[sample]), 1, (), "stop"))

    def fail(self) -> None:
        self._pieces.put_nowait(DeadlineExceeded("no more time to draw"))

    async def __aiter__(self) -> AsyncIterator[Piece]:
        for _ in range(self.num_samples):
            piece = await self._pieces.get()
            if piece is None:
                return
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def aclose(self) -> None:
        self._pieces.put_nowait(None)


class Judge:
    """A reward model that answers when a test lets it, and says how it was asked."""

    name = "judge"
    objectives = ("quality",)

    def __init__(self) -> None:
        self.calls: list[list[float]] = []
        self.weight_version = "judge-1"
        self.errors: list[Exception] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.num_running = 0
        self.num_cancelled = 0

    async def rank(
        self, messages: Sequence[Mapping[str, str]], completions: Sequence[str], **_: Any
    ) -> Ranking:
        assert messages == TURNS
        values = [float(text) for text in completions]
        self.calls.append(values)
        self.num_running += 1
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise
        finally:
            self.num_running -= 1
        if self.errors:
            raise self.errors.pop(0)
        rewards = [Reward(value, None, {"quality": value}) for value in values]
        return Ranking(rewards, self.weight_version, None)
