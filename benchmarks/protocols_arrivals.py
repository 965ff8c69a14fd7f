"""Groups whose samples arrive one by one, as verl sends them, against one request a group."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.command import table
from benchmarks.measure import orders, ratio, timed
from benchmarks.protocols_callers import Callers, bodies_of, numbers_of, reordered
from benchmarks.protocols_wire import PROTOCOLS, Protocol, native
from benchmarks.throughput import TOLERANCE
from benchmarks.tokens import needed_tokens
from benchmarks.workload import Item

TOGETHER = "one request a group"
IN_TURN = "a request a sample, group after group"
MIXED = "a request a sample, groups mixed"

Way = tuple[Protocol, Callable[[Sequence[Item], str], list[list[Item]]]]
"""A protocol, and the items of each request."""


def _together(groups: Sequence[Item], seed: str) -> list[list[Item]]:
    del seed
    return [[group] for group in groups]


def _in_turn(groups: Sequence[Item], seed: str) -> list[list[Item]]:
    del seed
    return [[Item(group.prompt, [answer])] for group in groups for answer in group.candidates]


def _mixed(groups: Sequence[Item], seed: str) -> list[list[Item]]:
    requests = _in_turn(groups, seed)
    return random.Random(seed).sample(requests, len(requests))


_SINGLE = next(one for one in PROTOCOLS if one.path == "/classify" and one.shape == "one sample")
WAYS: Mapping[str, Way] = {
    TOGETHER: (native("a group"), _together),
    IN_TURN: (_SINGLE, _in_turn),
    MIXED: (_SINGLE, _mixed),
}


def measure_arrivals(
    callers: Callers, groups: Sequence[Item], *, folder: Path, rounds: int
) -> dict[str, Any]:
    """Return seconds and tokens of each way to send groups.

    Args:
        callers: Who send them.
        groups: Prompts with their samples; each round has their words in another order.
        folder: Of the checkpoint.
        rounds: How many are timed.

    Raises:
        SystemExit: If the ways have different scores.
    """
    error = _check(callers, reordered(groups, seed="check"))
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    tokens: dict[str, list[int]] = {name: [] for name in WAYS}
    for number, name in orders(list(WAYS), rounds=rounds):
        protocol, requests = WAYS[name]
        items = reordered(groups, seed=f"{number} {name}")
        bodies = bodies_of(protocol, requests(items, f"{number}"))
        before = callers.computed_tokens
        took = timed(partial(callers.post, protocol.path, bodies))
        if number >= 0:
            seconds[name].append(took)
            tokens[name].append(callers.computed_tokens - before)
    return {
        "candidates": sum(len(group.candidates) for group in groups),
        "needed_tokens": needed_tokens(folder, groups),
        "unshared_tokens": needed_tokens(folder, _apart(groups)),
        "computed_tokens": {name: statistics.median(counts) for name, counts in tokens.items()},
        "max_abs_error": error,
        "seconds": seconds,
    }


def _apart(groups: Sequence[Item]) -> list[Item]:
    """Return each sample behind a prompt of its own, as long as the one of its group."""
    singles = [item for request in _in_turn(groups, "") for item in request]
    return reordered(singles, seed="apart")


def _check(callers: Callers, groups: Sequence[Item]) -> float:
    found: list[list[float]] = []
    # Mixed requests are those of the way before it, in an order of their own.
    for name in (TOGETHER, IN_TURN):
        protocol, requests = WAYS[name]
        answers = callers.post(protocol.path, bodies_of(protocol, requests(groups, "check")))
        found.append(numbers_of(protocol, answers))
    error = max(abs(a - b) for a, b in zip(*found, strict=True))
    # Not `error > TOLERANCE`, which NaN would pass.
    if not error <= TOLERANCE:
        raise SystemExit(f"scores of single samples differ by {error}, so nothing is timed")
    return error


def arrivals_table(result: Mapping[str, Any], *, callers: int) -> dict[str, Any]:
    """Return the table: what is saved of the tokens that sharing prompts can save, and times."""
    needed, unshared = result["needed_tokens"], result["unshared_tokens"]
    rows: list[list[str]] = []
    for name, seconds in result["seconds"].items():
        tokens = result["computed_tokens"][name]
        speed = ratio(result["seconds"][TOGETHER], seconds)
        rows.append(
            [
                name,
                f"{tokens:,.0f}",
                f"{(unshared - tokens) / (unshared - needed):.1%}",
                f"{result['candidates'] / statistics.median(seconds):.1f}",
                f"{speed['median']:.2f} ({speed['low']:.2f} to {speed['high']:.2f})",
            ]
        )
    title = (
        f"samples of one prompt, {callers} callers: {result['candidates']:,} candidates, "
        f"{needed:,} tokens where each prompt is computed once, {unshared:,} where none is shared"
    )
    columns = ["way", "tokens", "saved of what can be", "candidates/s", "speed"]
    return table(title, columns, rows)
