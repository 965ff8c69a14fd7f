"""How fast scoring is: engine and server against plain transformers, same weights, same run.

    python -m benchmarks.score_throughput [--rounds N] [--out FILE.json]

Three workloads on an 8-layer, 512-wide Llama with random weights: single candidates of ragged
lengths, eight candidates behind each prompt, and sixteen behind long ones. Scores are checked
equal before anything is timed; a difference ends the run without a figure. Peak memory is taken
of each way in a process of its own, that holds nothing else, from after start-up on.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.command import main
from benchmarks.measure import ratio
from benchmarks.memory import memory_of
from benchmarks.subjects import ALONE, ENGINE, HTTP, PADDED, opened
from benchmarks.throughput import CHECK, compare, comparison
from benchmarks.tokens import needed_tokens
from benchmarks.ways import WAYS
from benchmarks.workload import (
    Workload,
    groups_of_8,
    groups_of_16,
    ragged_singles,
    write_checkpoint,
)


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured; published figures say in their command where they differ."""

    rounds: int = 7
    groups: int = 8
    """Prompts with 8 candidates each."""
    singles: int = 64
    """Prompts with one candidate each."""
    wide: int = 2
    """Long prompts with 16 candidates each."""
    layers: int = 8
    width: int = 512

    def workloads(self) -> dict[str, Workload]:
        """Return the items of each workload."""
        return {
            "groups of 8": groups_of_8(self.groups),
            "ragged singles": ragged_singles(self.singles),
            "groups of 16": groups_of_16(self.wide),
        }


def run(setting: Setting, folder: Path) -> dict[str, Any]:
    """Return all figures of a setting, measured on a checkpoint that is written into a folder.

    Raises:
        SystemExit: If scores differ by more than the tolerance.
    """
    write_checkpoint(folder, layers=setting.layers, width=setting.width)
    workloads = setting.workloads()
    results: dict[str, Any] = {}
    with ExitStack() as stack:
        subjects = {way: stack.enter_context(opened(build(folder))) for way, build in WAYS.items()}
        for name, workload in workloads.items():
            results[name] = compare(
                subjects,
                workload,
                rounds=setting.rounds,
                expected=subjects[ALONE].score(workload(CHECK)),
                needed_tokens=needed_tokens(folder, workload(CHECK)),
            )
    tables: list[dict[str, Any]] = []
    for name, workload in workloads.items():
        result = results[name]
        seconds = result["seconds"]
        result["engine_over_padded"] = ratio(seconds[PADDED], seconds[ENGINE])
        result["engine_over_one_at_a_time"] = ratio(seconds[ALONE], seconds[ENGINE])
        result["http_over_engine_throughput"] = ratio(seconds[ENGINE], seconds[HTTP])
        result["peak_memory_mib"] = {way: memory_of(way, folder, workload(CHECK)) for way in WAYS}
        tables.append(_table(name, result))
    return {**results, "tables": tables}


def _table(name: str, result: dict[str, Any]) -> dict[str, Any]:
    shown = comparison(name, result, baseline=PADDED)
    shown["columns"].append("peak MiB")
    for way, row in zip(WAYS, shown["rows"], strict=True):
        row.append(f"{result['peak_memory_mib'][way]:,.0f}")
    over = result["http_over_engine_throughput"]
    shown["title"] += f"; HTTP server over engine {over['median']:.2f}"
    return shown


if __name__ == "__main__":
    main(Setting, run)
