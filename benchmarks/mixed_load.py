"""The server under a mixed load of random arrivals, below its capacity and above it.

    python -m benchmarks.mixed_load [--load-s SECONDS] [--out FILE.json]

Singles, groups of 8 and groups of 64, short and long, as Poisson arrivals at 50, 80 and 120 % of
the capacity that is measured just before with clients that wait for their answers. Every request
carries the same deadline. A request is admitted unless it is refused with 429; one that was
admitted and had no scores in time is answered with 504. Above capacity a good server refuses at
once what it could not finish, answers the rest in time, and its memory stays where it was.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.arrivals import LATE, OK, TOO_MANY, Outcome, capacity, poisson
from benchmarks.command import main, table
from benchmarks.measure import (
    peak_memory_mib,
    percentile,
    reset_peak_memory,
    resident_memory_mib,
)
from benchmarks.served import ServerSubject
from benchmarks.subjects import PlainSubject, opened
from benchmarks.throughput import check_equal
from benchmarks.workload import Item, Lengths, Texts, write_checkpoint

LOADS = (0.5, 0.8, 1.2)
_SHORT: tuple[Lengths, Lengths] = (10, 60), (10, 60)
_LONG: tuple[Lengths, Lengths] = (200, 800), (60, 250)
_DECK = (
    *[(1, _SHORT)] * 7,
    *[(1, _LONG)] * 7,
    *[(8, _SHORT)] * 3,
    *[(8, _LONG)] * 2,
    (64, _SHORT),
)
"""Candidates and lengths of 20 requests: shuffled and dealt again and again, so that capacity is
measured on the mix that arrives."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured."""

    load_s: float = 60.0
    """Seconds of arrivals at each load."""
    timeout_s: float = 10.0
    """Deadline that every request carries."""
    probes: int = 60
    """Requests that capacity is measured with, after as many to warm up."""
    clients: int = 16
    """That wait for their answers while capacity is measured."""
    max_queued_tokens: int = 0
    """Of the server; 0 for its default."""
    layers: int = 8
    width: int = 512


def mixed_items(count: int, *, seed: int) -> list[Item]:
    """Return a mix: the larger a group the rarer, half of the requests short."""
    texts, source = Texts(seed), random.Random(seed)
    items: list[Item] = []
    while len(items) < count:
        for candidates, (prompt, own) in source.sample(_DECK, k=len(_DECK)):
            items.append(Item(texts.text(*prompt), [texts.text(*own) for _ in range(candidates)]))
    return items[:count]


def run(setting: Setting, folder: Path) -> dict[str, Any]:
    """Return what became of the requests at each load, on a checkpoint written into a folder.

    Raises:
        SystemExit: If scores differ by more than the tolerance.
    """
    write_checkpoint(folder, layers=setting.layers, width=setting.width)
    settings = {"max_queued_tokens": setting.max_queued_tokens} if setting.max_queued_tokens else {}
    loads: list[dict[str, Any]] = []
    with ExitStack() as stack:
        server = stack.enter_context(opened(ServerSubject(folder, settings=settings)))
        assert isinstance(server, ServerSubject)
        probe = mixed_items(4, seed=0)
        with opened(PlainSubject(folder, batch_size=1)) as alone:
            errors = check_equal({"server": server}, probe, expected=alone.score(probe))
        for seed, share in enumerate(LOADS, start=1):
            loads.append(_load(server, setting, share=share, seed=seed))
    return {"max_abs_error": errors, "loads": loads, "tables": [_table(setting, loads)]}


def _load(server: ServerSubject, setting: Setting, *, share: float, seed: int) -> dict[str, Any]:
    """Measure capacity, then let requests arrive at a share of it."""

    def bodies(count: int, *, seed: int) -> list[dict[str, Any]]:
        return [server.requests(item)[0] for item in mixed_items(count, seed=seed)]

    most = 0.0
    # Twice, of which the first warms up.
    for number in (1, 2):
        probes = bodies(setting.probes, seed=1000 * seed + number)
        most = server.runner.run(capacity(server.url, probes, clients=setting.clients))
    before_mib = resident_memory_mib(server.pid)
    reset_peak_memory(server.pid)
    requests = bodies(max(1, round(share * most * setting.load_s)), seed=1000 * seed)
    for body in requests:
        body["timeout_s"] = setting.timeout_s
    outcomes = server.runner.run(poisson(server.url, requests, rate=share * most, seed=seed))
    return {
        "share": share,
        "capacity_per_s": most,
        "requests": len(outcomes),
        "resident_mib_before": before_mib,
        "peak_mib": peak_memory_mib(server.pid),
        "resident_mib_after": resident_memory_mib(server.pid),
        "outcomes": [asdict(outcome) for outcome in outcomes],
        **_summary(outcomes),
    }


def _summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    seconds = {
        status: [outcome.seconds for outcome in outcomes if outcome.status == status]
        for status in (OK, TOO_MANY, LATE)
    }
    admitted = seconds[OK] + seconds[LATE]
    return {
        "statuses": dict(Counter(str(outcome.status) for outcome in outcomes)),
        "refused_share": len(seconds[TOO_MANY]) / len(outcomes),
        "missed_deadlines": len(seconds[LATE]),
        "admitted_s": {"p50": percentile(admitted, 0.5), "p99": percentile(admitted, 0.99)},
        "refusal_s": {
            "p50": percentile(seconds[TOO_MANY], 0.5),
            "p99": percentile(seconds[TOO_MANY], 0.99),
        },
    }


def _table(setting: Setting, loads: Sequence[dict[str, Any]]) -> dict[str, Any]:
    rows = [
        [
            f"{load['share']:.0%}",
            f"{load['capacity_per_s']:.2f}",
            f"{load['requests']:,}",
            _milliseconds(load["admitted_s"]),
            f"{load['missed_deadlines']:,}",
            f"{load['refused_share']:.1%}",
            _milliseconds(load["refusal_s"]),
            f"{load['resident_mib_before']:,.0f}",
            f"{load['peak_mib']:,.0f}",
            f"{load['resident_mib_after']:,.0f}",
        ]
        for load in loads
    ]
    columns = [
        "load",
        "capacity/s",
        "requests",
        "admitted p50/p99 ms",
        "missed",
        "refused",
        "refusal p50/p99 ms",
        "MiB before",
        "peak",
        "after",
    ]
    title = f"mixed load, {setting.load_s:g} s each, deadline {setting.timeout_s:g} s"
    return table(title, columns, rows)


def _milliseconds(seconds: dict[str, float | None]) -> str:
    return " / ".join("-" if s is None else f"{1e3 * s:,.1f}" for s in seconds.values())


if __name__ == "__main__":
    main(Setting, run)
