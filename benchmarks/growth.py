"""How the cost of a token grows with candidates and with the prompt: flat is what one hopes for.

    python -m benchmarks.growth [--rounds N] [--out FILE.json]

One request at a time: 1 to 64 candidates of 64 tokens behind a prompt of 256, and two candidates of
64 tokens behind prompts of 128 to 8,192. The cost is per token computed, so that attention, which
grows with the length of the prompt, shows, and what a request costs by itself shows in the
smallest.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.command import main, table
from benchmarks.subjects import ALONE, ENGINE, EngineSubject, PlainSubject, Subject, opened
from benchmarks.throughput import CHECK, compare
from benchmarks.tokens import needed_tokens
from benchmarks.workload import Workload, workload_of, write_checkpoint


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured."""

    rounds: int = 5
    most_candidates: int = 64
    longest_prompt: int = 8192
    layers: int = 8
    width: int = 512

    def series(self) -> dict[str, dict[str, Workload]]:
        """Return the items of each point of each series."""
        candidates = [n for n in (1, 4, 16, 64) if n <= self.most_candidates]
        prompts = [128 * 2**i for i in range(7) if 128 * 2**i <= self.longest_prompt]
        return {
            "candidates": {
                str(n): workload_of(1, prompt=(256, 256), candidate=(64, 64), candidates=n)
                for n in candidates
            },
            "prompt tokens": {
                f"{n:,}": workload_of(1, prompt=(n, n), candidate=(64, 64), candidates=2)
                for n in prompts
            },
        }


def run(setting: Setting, folder: Path) -> dict[str, Any]:
    """Return the cost per token of each point on a checkpoint that is written into a folder.

    Raises:
        SystemExit: If scores differ by more than the tolerance.
    """
    write_checkpoint(folder, layers=setting.layers, width=setting.width)
    series: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        subjects: dict[str, Subject] = {
            ENGINE: stack.enter_context(opened(EngineSubject(folder))),
            ALONE: stack.enter_context(opened(PlainSubject(folder, batch_size=1))),
        }
        for name, points in setting.series().items():
            series[name] = {
                point: compare(
                    subjects,
                    items,
                    rounds=setting.rounds,
                    expected=subjects[ALONE].score(items(CHECK)),
                    needed_tokens=needed_tokens(folder, items(CHECK)),
                )
                for point, items in points.items()
            }
    tables = [_table(name, points) for name, points in series.items()]
    return {"series": series, "tables": tables}


def _table(name: str, points: Mapping[str, Any]) -> dict[str, Any]:
    rows: list[list[str]] = []
    for point, result in points.items():
        seconds = {way: statistics.median(result["seconds"][way]) for way in (ENGINE, ALONE)}
        tokens = result["computed_tokens"]
        cost = {way: 1e6 * seconds[way] / tokens[way] for way in seconds}
        rows.append(
            [
                point,
                f"{1e3 * seconds[ENGINE]:,.1f}",
                f"{cost[ENGINE]:,.0f}",
                f"{cost[ALONE]:,.0f}",
                f"{tokens[ENGINE]:,}",
                f"{result['needed_tokens'] / tokens[ENGINE]:.0%}",
                f"{result['needed_tokens'] / tokens[ALONE]:.0%}",
                f"{seconds[ALONE] / seconds[ENGINE]:.2f}",
            ]
        )
    columns = [
        name,
        "engine, ms",
        "us a token",
        "one at a time",
        "engine, tokens",
        "limit",
        "one at a time",
        "speed",
    ]
    return table(f"one request, more and more {name}", columns, rows)


if __name__ == "__main__":
    main(Setting, run)
