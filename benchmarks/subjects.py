"""The ways to score that are compared: plain transformers, the engine, the server.

Each is built by itself from a checkpoint folder, so that a process that holds one holds nothing
of the others.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.plain import PlainTransformers
from benchmarks.workload import Item
from steerward.clients import AsyncClient
from steerward.config import EngineConfig
from steerward.engine.loading import load_engine
from steerward.metrics import Metrics
from steerward.protocol.scoring import ScoreRequest

PADDED, ALONE, ENGINE, HTTP = "padded batches of 8", "one at a time", "engine", "HTTP server"

# A slow machine is slow for all; a deadline would end the run without a figure.
_TIMEOUT_S = 3600.0


class Subject(ABC):
    """One way to score."""

    pid: int | str = "self"
    """Process that holds the model, as `/proc` names it."""

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

    def score(self, items: Sequence[Item]) -> list[float]:
        """Return the scores, batch after batch."""
        return self._plain.score(items, batch_size=self._batch_size).tolist()

    def close(self) -> None:
        """Nothing was started."""


class EngineSubject(Subject):
    """The engine in this process, all items in flight at once."""

    def __init__(self, folder: Path) -> None:
        config = EngineConfig(device="cpu", request_timeout_s=_TIMEOUT_S)
        self._engine = load_engine(str(folder), name="bench", config=config, metrics=Metrics())
        self._runner = asyncio.Runner()
        self._engine.start()
        self._runner.run(self._engine.wait_until_ready())

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


class ServerSubject(Subject):
    """``steerward serve`` in a process of its own, all items in flight at once."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "steerward", "serve", "--reward-model", str(folder)]
        options = ["--port", "0", "--device", "cpu", "--request-timeout-s", str(_TIMEOUT_S)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("STEERWARD_")}
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by close)
        self._process = subprocess.Popen([*command, *options], stderr=self._log, env=environment)
        self.pid = self._process.pid
        self._runner = asyncio.Runner()
        self._client = AsyncClient(self._wait_for_url(), timeout_s=_TIMEOUT_S)

    def _wait_for_url(self) -> str:
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline and self._process.poll() is None:
            self._log.seek(0)
            if found := re.search(r"running on (http://[\d.:]+)", self._log.read()):
                return found[1]
            time.sleep(0.05)
        self._stop()
        raise RuntimeError("the server did not start")

    def score(self, items: Sequence[Item]) -> list[float]:
        """Return the scores, a request an item."""
        return self._runner.run(self._score(items))

    async def _score(self, items: Sequence[Item]) -> list[float]:
        answers = await asyncio.gather(
            *(self._client.score(item.prompt, item.candidates) for item in items)
        )
        return [c.score or 0.0 for a in answers for c in a.items[0].candidates]

    def close(self) -> None:
        """End the process."""
        self._runner.run(self._client.close())
        self._stop()

    def _stop(self) -> None:
        self._runner.close()
        self._process.terminate()
        self._process.wait(timeout=60)
        self._log.close()


SUBJECTS: Mapping[str, Callable[[Path], Subject]] = {
    PADDED: partial(PlainSubject, batch_size=8),
    ALONE: partial(PlainSubject, batch_size=1),
    ENGINE: EngineSubject,
    HTTP: ServerSubject,
}
