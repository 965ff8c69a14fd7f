"""What engine and server add to the time of a forward pass: one client, one short candidate.

    python -m benchmarks.latency [--rounds N] [--out FILE.json]

Four ways by turns, request after request, every request with other words: the model's forward
pass on tokens that are packed already, the engine, the server over a bare connection, and the
server over the client of the package. Each of them computes on threads of its own, which get in
each other's way; what the server adds is therefore also told by itself, when nothing else runs: the
time of a request less that of the forward pass within it, which the server says in a header.
"""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.command import main, table
from benchmarks.connection import Connection
from benchmarks.measure import orders, percentile, timed
from benchmarks.served import ServerSubject
from benchmarks.subjects import ALONE, ENGINE, HTTP, EngineSubject, PlainSubject, Subject, opened
from benchmarks.throughput import CHECK, check_equal
from benchmarks.workload import Item, workload_of, write_checkpoint
from steerward.clients import Client
from steerward.models.checkpoint import load_reward_model
from steerward.models.packing import group_conversations

FORWARD, CLIENT = "forward pass", "HTTP server, by its client"
ADDED = "HTTP server, less its own forward pass"
_INFERENCE = re.compile(rb"\r\nx-inference-ms: *([\d.]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured."""

    rounds: int = 5
    requests: int = 50
    """Of a round, to each way."""
    prompt_tokens: int = 20
    candidate_tokens: int = 20
    layers: int = 8
    width: int = 512


class ForwardSubject(Subject):
    """The model's forward pass alone, an item at a time."""

    def __init__(self, folder: Path) -> None:
        self.model = load_reward_model(folder, device="cpu", dtype="float32")
        self._computed_tokens = 0

    @property
    def computed_tokens(self) -> int:
        """Tokens that forward passes computed so far."""
        return self._computed_tokens

    def prepared(self, item: Item) -> Callable[[], list[float]]:
        """Return what scores an item that is encoded already."""
        context = [{"role": "user", "content": item.prompt}]
        groups = group_conversations(self.model.encode(context, item.candidates))

        def forward() -> list[float]:
            scores = self.model.score(groups).scores_N
            assert scores is not None
            self._computed_tokens += sum(group.num_tokens for group in groups)
            return scores.tolist()

        return forward

    def score(self, items: Sequence[Item]) -> list[float]:
        """Return the scores, item by item."""
        return [score for item in items for score in self.prepared(item)()]

    def close(self) -> None:
        """Nothing was started."""


class _Wire:
    """One bare connection, and what the server said of the last request."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._connection = Connection(url)

    def score(self, item: Item) -> None:
        """Send one item and wait for its scores."""
        body = json.dumps({"items": [item.body()]}).encode()
        status, _ = self._runner.run(self._connection.post("/v1/score", body))
        assert status == 200

    @property
    def inference_s(self) -> float:
        """Seconds of the last request's forward pass."""
        found = _INFERENCE.search(self._connection.head)
        assert found is not None
        return float(found[1]) / 1e3

    def close(self) -> None:
        """Close the connection."""
        self._runner.run(self._connection.close())
        self._runner.close()


def run(setting: Setting, folder: Path) -> dict[str, Any]:
    """Return the times of each way on a checkpoint that is written into a folder.

    Raises:
        SystemExit: If scores differ by more than the tolerance.
    """
    write_checkpoint(folder, layers=setting.layers, width=setting.width)
    size, own = setting.prompt_tokens, setting.candidate_tokens
    workload = workload_of(setting.requests, prompt=(size, size), candidate=(own, own))
    with ExitStack() as stack:
        forward = stack.enter_context(opened(ForwardSubject(folder)))
        server = stack.enter_context(opened(ServerSubject(folder, clients=1)))
        assert isinstance(forward, ForwardSubject)
        assert isinstance(server, ServerSubject)
        subjects = {
            FORWARD: forward,
            ENGINE: stack.enter_context(opened(EngineSubject(folder))),
            HTTP: server,
        }
        items = workload(CHECK)
        with opened(PlainSubject(folder, batch_size=1)) as alone:
            expected = alone.score(items)
            errors = check_equal({**subjects, ALONE: alone}, items, expected=expected)
        client = stack.enter_context(Client(server.url))
        wire = stack.enter_context(closing(_Wire(server.url)))
        methods: dict[str, Callable[[Item], Callable[[], object]]] = {
            FORWARD: forward.prepared,
            ENGINE: lambda item: lambda: subjects[ENGINE].score([item]),
            HTTP: lambda item: lambda: wire.score(item),
            CLIENT: lambda item: lambda: client.score(item.prompt, item.candidates),
        }
        seconds: dict[str, list[float]] = {name: [] for name in methods}
        added: list[float] = []
        for number in range(-1, setting.rounds):
            for item in workload(number):
                for _, name in orders(list(methods), rounds=1, warm_up=0):
                    took = timed(methods[name](item))
                    if number >= 0:
                        seconds[name].append(took)
        # By itself, so that no other way's threads are awake.
        time.sleep(1.0)
        for item in workload(setting.rounds):
            took = timed(lambda item=item: wire.score(item))
            added.append(took - wire.inference_s)
    seconds[ADDED] = added
    result = {"max_abs_error": errors, "seconds": seconds}
    return {**result, "tables": [_table(setting, seconds)]}


def _table(setting: Setting, seconds: dict[str, list[float]]) -> dict[str, Any]:
    medians = {name: 1e3 * statistics.median(times) for name, times in seconds.items()}
    rows: list[list[str]] = []
    for name, times in seconds.items():
        p99 = percentile(times, 0.99)
        assert p99 is not None
        rows.append(
            [
                name,
                f"{medians[name]:.2f}",
                f"{1e3 * p99:.2f}",
                "" if name in (FORWARD, ADDED) else f"{medians[name] - medians[FORWARD]:+.2f}",
                f"{medians[name] - medians[ENGINE]:+.2f}" if name in (HTTP, CLIENT) else "",
            ]
        )
    count = setting.prompt_tokens + setting.candidate_tokens
    title = f"one client, one candidate of {count} tokens with its prompt, milliseconds"
    return table(title, ["way", "median", "p99", "over forward", "over engine"], rows)


if __name__ == "__main__":
    main(Setting, run)
