"""The ways to score within this process: plain transformers and the engine.

Each is built by itself from a checkpoint folder, so that a process that holds one holds nothing
of the others. Those that answer over HTTP are in `benchmarks.served`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.plain import PlainTransformers, rendered
from benchmarks.workload import Item
from steerward.config import EngineConfig
from steerward.engine.engine import Engine
from steerward.metrics import Metrics
from steerward.models.checkpoint import load_reward_model
from steerward.models.reward_model import RewardModel
from steerward.protocol.scoring import ScoreRequest

PADDED, ALONE, ENGINE, HTTP = "padded batches of 8", "one at a time", "engine", "HTTP server"

# A slow machine is slow for all; a deadline would end the run without a figure.
TIMEOUT_S = 3600.0


class Subject(ABC):
    """One way to score."""

    pid: int | str = "self"
    """Process that holds the model, as `/proc` names it."""

    @property
    @abstractmethod
    def computed_tokens(self) -> int:
        """Tokens that forward passes computed so far, padding included."""

    @abstractmethod
    def score(self, items: Sequence[Item]) -> list[float]:
        """Return the score of every candidate, item by item."""

    @abstractmethod
    def close(self) -> None:
        """Stop what was started."""


class PlainSubject(Subject):
    """transformers alone, in batches of a given size."""

    def __init__(self, folder: Path, *, batch_size: int) -> None:
        self._plain = PlainTransformers(folder)
        self._batch_size = batch_size

    @property
    def computed_tokens(self) -> int:
        """Tokens that forward passes computed so far, padding included."""
        return self._plain.computed_tokens

    def score(self, items: Sequence[Item]) -> list[float]:
        """Return the scores, batch after batch."""
        texts = [text for item in items for text in rendered(self._plain.tokenizer, item)]
        return self._plain.score(texts, batch_size=self._batch_size)

    def close(self) -> None:
        """Nothing was started."""


class EngineSubject(Subject):
    """The engine in this process, all items in flight at once.

    Args:
        source: Checkpoint.
        dtype: Of the backbone.
        settings: Of `EngineConfig`, where they are not the defaults.
    """

    def __init__(self, source: Path | str, *, dtype: str = "float32", **settings: Any) -> None:
        config = EngineConfig(device="cpu", request_timeout_s=TIMEOUT_S, **settings)
        model = load_reward_model(source, device="cpu", dtype=dtype)
        self._metrics = Metrics()
        self._engine = Engine(model, name="bench", config=config, metrics=self._metrics)
        self._runner = asyncio.Runner()
        self._engine.start()
        self._runner.run(self._engine.wait_until_ready())

    @property
    def model(self) -> RewardModel:
        """What the engine runs."""
        return self._engine.model

    @property
    def computed_tokens(self) -> int:
        """Tokens that forward passes computed so far."""
        name, labels = "steerward_computed_tokens_total", {"model": "bench"}
        return int(self._metrics.registry.get_sample_value(name, labels) or 0)

    def score(self, items: Sequence[Item]) -> list[float]:
        """Return the scores, a request an item."""
        return self._runner.run(self._score(items))

    async def _score(self, items: Sequence[Item]) -> list[float]:
        requests = [ScoreRequest.model_validate({"items": [item.body()]}) for item in items]
        scored = await asyncio.gather(*(self._engine.score(one) for one in requests))
        return [c["score"] for s in scored for c in s.answer["items"][0]["candidates"]]

    def close(self) -> None:
        """Stop the engine."""
        self._engine.close()
        self._runner.close()


def has_setting(name: str) -> bool:
    """Return whether the engine has a setting of this name."""
    return name in EngineConfig.model_fields


@contextmanager
def opened(subject: Subject) -> Iterator[Subject]:
    """Close a subject at the end."""
    try:
        yield subject
    finally:
        subject.close()
