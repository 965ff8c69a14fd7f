"""Requests that are answered while weights are exchanged, against those of quiet times."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.command import table
from benchmarks.connection import Connection
from benchmarks.dialogues import QUESTIONS
from benchmarks.measure import percentile
from benchmarks.rsf_jobs import POLICY

EXCHANGED = "exchanged"
"""Name that the weights of iterations are served under by turns."""
AROUND_S = 1.0
"""A request is near a swap if it ran in it, or within so many seconds of it."""


@dataclass(frozen=True, slots=True)
class Span:
    """A request or a swap, in seconds from the start."""

    begin_s: float
    end_s: float
    model: str
    status: int

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end_s - self.begin_s


@dataclass(frozen=True, slots=True)
class SwapSetting:
    """How much traffic, and how often it is disturbed."""

    clients: int
    swaps: int
    every_s: float
    """From one swap to the next."""
    max_tokens: int


def measure_swaps(url: str, folders: Sequence[Path], setting: SwapSetting) -> dict[str, Any]:
    """Return how requests fared near swaps and in quiet times.

    Args:
        url: Of a server that may load from the folders.
        folders: Weights, served in turn; each swap takes the next.
        setting: How much.
    """
    return asyncio.run(_measure(url, folders, setting))


async def _measure(url: str, folders: Sequence[Path], setting: SwapSetting) -> dict[str, Any]:
    began = time.perf_counter()
    is_over = asyncio.Event()
    requests: list[Span] = []
    loader = Connection(url)

    async def post(connection: Connection, path: str, body: Mapping[str, Any], model: str) -> Span:
        begin = time.perf_counter() - began
        try:
            status, _ = await connection.post(path, json.dumps(body).encode())
        except (OSError, asyncio.IncompleteReadError):
            status = 0
        return Span(begin, time.perf_counter() - began, model, status)

    async def client(number: int) -> None:
        connection, model = Connection(url), (POLICY, EXCHANGED)[number % 2]
        asked = 0
        while not is_over.is_set():
            question = QUESTIONS[(number + asked) % len(QUESTIONS)]
            body = _request(model, question, seed=asked, max_tokens=setting.max_tokens)
            requests.append(await post(connection, "/v1/chat/completions", body, model))
            asked += 1
        await connection.close()

    async def swap(number: int) -> Span:
        body = {"id": EXCHANGED, "path": str(folders[number % len(folders)]), "parent": POLICY}
        return await post(loader, "/v1/models", body, EXCHANGED)

    first = await swap(0)
    if first.status != 200:
        raise RuntimeError(f"{folders[0]} was not loaded: {first.status}")
    clients = [asyncio.create_task(client(number)) for number in range(setting.clients)]
    swaps: list[Span] = []
    for number in range(1, setting.swaps + 1):
        await asyncio.sleep(setting.every_s)
        swaps.append(await swap(number))
    await asyncio.sleep(setting.every_s)
    is_over.set()
    await asyncio.gather(*clients)
    await loader.close()
    # While all warms up, nothing is counted.
    counted = [one for one in requests if one.begin_s > first.end_s + AROUND_S]
    return summarise(counted, swaps)


def _request(model: str, question: str, *, seed: int, max_tokens: int) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": max_tokens,
        "seed": seed,
        "reward": False,
    }


def summarise(requests: Sequence[Span], swaps: Sequence[Span]) -> dict[str, Any]:
    """Return latencies near swaps and in quiet times, and what failed."""

    def is_near(one: Span) -> bool:
        return any(
            one.begin_s < swap.end_s + AROUND_S and one.end_s > swap.begin_s - AROUND_S
            for swap in swaps
        )

    near = [one for one in requests if is_near(one)]
    quiet = [one for one in requests if not is_near(one)]
    failed = [one for one in requests if one.status != 200]
    return {
        "requests": len(requests),
        "failed": [asdict(one) for one in failed],
        "failed_swaps": sum(swap.status != 200 for swap in swaps),
        "swap_s": [swap.seconds for swap in swaps],
        "latency_s": {"near": _latencies(near), "quiet": _latencies(quiet)},
        "p99_ratio": _ratio(near, quiet),
        "p99_ratio_by_model": {
            model: _ratio(
                [one for one in near if one.model == model],
                [one for one in quiet if one.model == model],
            )
            for model in sorted({one.model for one in requests})
        },
    }


def _latencies(spans: Sequence[Span]) -> dict[str, float | int | None]:
    seconds = [one.seconds for one in spans]
    return {
        "requests": len(seconds),
        **{f"p{share:g}": percentile(seconds, share / 100) for share in (50, 90, 99)},
        "max": max(seconds, default=None),
    }


def _ratio(near: Sequence[Span], quiet: Sequence[Span]) -> float | None:
    slow = percentile([one.seconds for one in near], 0.99)
    usual = percentile([one.seconds for one in quiet], 0.99)
    return slow / usual if slow is not None and usual is not None else None


def swap_table(result: Mapping[str, Any], setting: SwapSetting) -> dict[str, Any]:
    """Return the table of `measure_swaps`."""
    failed = [one["end_s"] for one in result["failed"]]
    rows = [
        [
            name,
            f"{found['requests']:,}",
            *("-" if found[key] is None else f"{1e3 * found[key]:,.0f}" for key in _SHOWN),
        ]
        for name, found in (
            (f"within {AROUND_S:g} s of a swap", result["latency_s"]["near"]),
            ("quiet", result["latency_s"]["quiet"]),
        )
    ]
    ratio = result["p99_ratio"]
    rows.append(["times", "", "", "", "-" if ratio is None else f"{ratio:.2f}", ""])
    title = (
        f"{setting.clients} clients while weights were exchanged {len(result['swap_s'])} times, "
        f"{1e3 * statistics.median(result['swap_s']):,.0f} ms each; {len(failed)} requests failed"
    )
    return table(title, ["requests", "count", "p50 ms", "p90 ms", "p99 ms", "longest ms"], rows)


_SHOWN = ("p50", "p90", "p99", "max")
