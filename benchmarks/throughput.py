"""Candidates a second of several ways on the same items, checked equal before they are timed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.command import table
from benchmarks.measure import interleaved, ratio
from benchmarks.subjects import Subject
from benchmarks.workload import Item, Workload

# float32 sums in another order; scores here have a spread of about 0.3.
TOLERANCE = 1e-4
CHECK = -2
"""Round on whose items all ways must agree: before the warm-up, and never timed."""


def check_equal(
    subjects: Mapping[str, Subject], items: Sequence[Item], *, expected: Sequence[float]
) -> dict[str, float]:
    """Return the largest difference of each way from the scores expected.

    Raises:
        SystemExit: If one is above the tolerance.
    """
    errors = {
        name: max(abs(a - b) for a, b in zip(subject.score(items), expected, strict=True))
        for name, subject in subjects.items()
    }
    # Not `error > TOLERANCE`, which NaN would pass.
    if not all(error <= TOLERANCE for error in errors.values()):
        raise SystemExit(f"scores differ, so nothing is timed: {errors}")
    return errors


def compare(
    subjects: Mapping[str, Subject],
    workload: Workload,
    *,
    rounds: int,
    expected: Sequence[float],
    needed_tokens: int,
) -> dict[str, Any]:
    """Return throughputs of one workload, and the tokens that each way computed for a round.

    Args:
        subjects: The ways.
        workload: Each round has other words, so that none profits from what was kept of others.
        rounds: How many are timed.
        expected: Scores of the items of round `CHECK`.
        needed_tokens: Of a round; all have the same.

    Raises:
        SystemExit: If scores differ.
    """
    errors = check_equal(subjects, workload(CHECK), expected=expected)
    before = {name: subject.computed_tokens for name, subject in subjects.items()}
    items = {number: workload(number) for number in range(-1, rounds)}
    methods: dict[str, Callable[[int], object]] = {
        name: lambda number, s=subject: s.score(items[number]) for name, subject in subjects.items()
    }
    seconds = interleaved(methods, rounds=rounds, warm_up=1)
    # Batches that depend on arrivals differ from round to round: the mean, warm-up included.
    tokens = {
        name: round((subject.computed_tokens - before[name]) / (rounds + 1))
        for name, subject in subjects.items()
    }
    candidates = sum(len(item.candidates) for item in items[0])
    return {
        "candidates": candidates,
        "needed_tokens": needed_tokens,
        "computed_tokens": tokens,
        "max_abs_error": errors,
        "candidates_per_s": {n: candidates / statistics.median(s) for n, s in seconds.items()},
        "seconds": seconds,
    }


def comparison(name: str, result: Mapping[str, Any], *, baseline: str) -> dict[str, Any]:
    """Return the table of one workload: speeds over a baseline, and what would be possible.

    The limit is the tokens needed over those that a way computes. A way that does not tell them
    counts none; the baseline has to.
    """
    needed, seconds = result["needed_tokens"], result["seconds"]
    possible = result["computed_tokens"][baseline] / needed
    rows: list[list[str]] = []
    for way, speed in result["candidates_per_s"].items():
        over = ratio(seconds[baseline], seconds[way])
        tokens = result["computed_tokens"][way]
        rows.append(
            [
                way,
                f"{speed:.1f}",
                f"{over['median']:.2f} ({over['low']:.2f} to {over['high']:.2f})",
                f"{over['median'] / possible:.0%}",
                f"{tokens:,}" if tokens else "not told",
                f"{needed / tokens:.0%}" if tokens else "",
                f"{result['max_abs_error'][way]:.0e}",
            ]
        )
    title = (
        f"{name}: {result['candidates']:,} candidates, {needed:,} tokens needed; at the cost per "
        f"token of {baseline}, {possible:.2f} times its speed is possible"
    )
    columns = ["way", "candidates/s", "speed", "of possible", "tokens", "limit", "error"]
    return table(title, columns, rows)
