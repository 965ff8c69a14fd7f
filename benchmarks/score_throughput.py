"""How fast scoring is: engine and server against plain transformers, same weights, same run.

    python -m benchmarks.score_throughput [--rounds N] [--out results/FILE.json]

Two workloads on an 8-layer, 512-wide Llama with random weights: single candidates of ragged
lengths, and eight candidates behind each prompt. Scores are checked equal before anything is
timed; a difference ends the run without a figure.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import (
    environment,
    finish,
    interleaved,
    peak_memory_mib,
    ratio,
    reset_peak_memory,
)
from benchmarks.plain import PlainTransformers
from benchmarks.workload import Item, grouped_items, single_items, write_checkpoint
from steerward.clients import AsyncClient
from steerward.config import EngineConfig
from steerward.engine.engine import Engine
from steerward.engine.loading import load_engine
from steerward.metrics import Metrics
from steerward.protocol.scoring import ScoreRequest

# float32 sums in another order; scores here have a spread of about 0.3.
TOLERANCE = 1e-4
PADDED, ALONE, ENGINE, HTTP = "padded batches of 8", "one at a time", "engine", "HTTP server"


class Subjects:
    """Everything that is measured, on one checkpoint."""

    def __init__(self, folder: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.plain = PlainTransformers(folder)
        config = EngineConfig(device="cpu")
        self.engine: Engine = load_engine(
            str(folder), name="bench", config=config, metrics=Metrics()
        )
        self.engine.start()
        loop.run_until_complete(self.engine.wait_until_ready())
        self.server = ServerProcess(folder)
        self._client = AsyncClient(self.server.url, timeout_s=600)

    def with_engine(self, items: Sequence[Item]) -> list[float]:
        """Return scores through the engine, all items in flight at once."""
        return self._loop.run_until_complete(self._with_engine(items))

    async def _with_engine(self, items: Sequence[Item]) -> list[float]:
        requests = [ScoreRequest.model_validate({"items": [item.body()]}) for item in items]
        scored = await asyncio.gather(*(self.engine.score(one) for one in requests))
        return [c["score"] for s in scored for c in s.answer["items"][0]["candidates"]]

    def with_http(self, items: Sequence[Item]) -> list[float]:
        """Return scores over HTTP, a request an item, all in flight at once."""
        return self._loop.run_until_complete(self._with_http(items))

    async def _with_http(self, items: Sequence[Item]) -> list[float]:
        answers = await asyncio.gather(
            *(self._client.score(item.prompt, item.candidates) for item in items)
        )
        return [c.score or 0.0 for a in answers for c in a.items[0].candidates]

    def close(self) -> None:
        """Stop engine and server."""
        self._loop.run_until_complete(self._client.close())
        self.engine.close()
        self.server.stop()


class ServerProcess:
    """``steerward serve`` on a free port."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "steerward", "serve", "--reward-model", str(folder)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("STEERWARD_")}
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by stop)
        self.process = subprocess.Popen(
            [*command, "--port", "0", "--device", "cpu"], stderr=self._log, env=environment
        )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            self._log.seek(0)
            if found := re.search(r"running on (http://[\d.:]+)", self._log.read()):
                self.url = found[1]
                return
            time.sleep(0.05)
        raise RuntimeError("the server did not start")

    def stop(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.wait(timeout=60)
        self._log.close()


def check_equal(subjects: Subjects, items: Sequence[Item]) -> dict[str, float]:
    """Return the largest difference of each way from one sequence at a time.

    Raises:
        SystemExit: If one is above the tolerance.
    """
    expected = subjects.plain.score(items, batch_size=1)
    found = {
        PADDED: subjects.plain.score(items, batch_size=8),
        ENGINE: torch.tensor(subjects.with_engine(items)),
        HTTP: torch.tensor(subjects.with_http(items)),
    }
    errors = {name: float((s - expected).abs().max()) for name, s in found.items()}
    if max(errors.values()) > TOLERANCE:
        raise SystemExit(f"scores differ, so nothing is timed: {errors}")
    return errors


def measure(subjects: Subjects, items: Sequence[Item], *, rounds: int) -> dict[str, Any]:
    """Return throughputs and ratios of one workload."""
    errors = check_equal(subjects, items)
    methods: dict[str, Callable[[], object]] = {
        PADDED: lambda: subjects.plain.score(items, batch_size=8),
        ALONE: lambda: subjects.plain.score(items, batch_size=1),
        ENGINE: lambda: subjects.with_engine(items),
        HTTP: lambda: subjects.with_http(items),
    }
    seconds = interleaved(methods, rounds=rounds)
    candidates = sum(len(item.candidates) for item in items)
    memory: dict[str, float] = {}
    for name in (PADDED, ALONE, ENGINE):
        reset_peak_memory()
        methods[name]()
        memory[name] = peak_memory_mib()
    memory[HTTP] = peak_memory_mib(subjects.server.process.pid)
    return {
        "candidates": candidates,
        "max_abs_error": errors,
        "candidates_per_s": {n: candidates / statistics.median(s) for n, s in seconds.items()},
        "engine_over_padded": ratio(seconds[PADDED], seconds[ENGINE]),
        "engine_over_one_at_a_time": ratio(seconds[ALONE], seconds[ENGINE]),
        "http_over_engine_throughput": ratio(seconds[ENGINE], seconds[HTTP]),
        "peak_memory_mib": memory,
        "seconds": seconds,
    }


def print_table(name: str, result: dict[str, Any]) -> None:
    """Print one workload for people."""
    print(f"\n{name}: {result['candidates']} candidates")
    for method, speed in result["candidates_per_s"].items():
        error = result["max_abs_error"].get(method, 0.0)
        memory = result["peak_memory_mib"][method]
        print(
            f"  {method:22} {speed:8.1f} candidates/s   peak {memory:6.0f} MiB   error {error:.1e}"
        )
    for key in ("engine_over_padded", "engine_over_one_at_a_time", "http_over_engine_throughput"):
        r = result[key]
        print(f"  {key:28} {r['median']:.2f}  ({r['low']:.2f}..{r['high']:.2f})")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--groups", type=int, default=8, help="prompts with 8 candidates each")
    parser.add_argument("--singles", type=int, default=64, help="single candidates")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    loop = asyncio.new_event_loop()
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), layers=8, width=512)
        subjects = Subjects(Path(folder), loop)
        try:
            result: dict[str, Any] = {"benchmark": "score_throughput", **environment()}
            workloads = {
                "groups of 8": grouped_items(options.groups),
                "ragged singles": single_items(options.singles),
            }
            for name, items in workloads.items():
                result[name] = measure(subjects, items, rounds=options.rounds)
                print_table(name, result[name])
        finally:
            subjects.close()
    finish(result, options.out)


if __name__ == "__main__":
    main()
