"""What each technique is worth: the engine with everything on, and with one thing off at a time.

    python -m benchmarks.ablation [--rounds N] [--out FILE.json]

The workloads are those of `score_throughput` and `repeats`; the techniques are the table in
`benchmarks/switches.py`. The scores of every row are checked against one sequence at a time.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import repeats
from benchmarks.command import main, table
from benchmarks.measure import interleaved, ratio
from benchmarks.subjects import EngineSubject, PlainSubject, Subject, has_setting, opened
from benchmarks.switches import EVERYTHING_ON, SWITCHES, Switch
from benchmarks.throughput import CHECK, check_equal
from benchmarks.workload import Item, groups_of_8, groups_of_16, ragged_singles, write_checkpoint

Passes = Callable[[int], list[list[Item]]]
"""Items of a round, one list for each pass over the engine."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured."""

    rounds: int = 5
    singles: int = 64
    groups: int = 8
    wide: int = 2
    prompts: int = 4
    """That come again, in the last workload."""
    layers: int = 8
    width: int = 512

    def workloads(self) -> dict[str, Passes]:
        """Return the passes of each workload."""
        singles, groups = ragged_singles(self.singles), groups_of_8(self.groups)
        wide = groups_of_16(self.wide)
        return {
            "ragged singles": lambda number: [singles(number)],
            "groups of 8": lambda number: [groups(number)],
            "groups of 16": lambda number: [wide(number)],
            "same prompts again": repeats.Setting(prompts=self.prompts).passes,
        }


def run(setting: Setting, folder: Path) -> dict[str, Any]:
    """Return the speed of each workload with each technique off.

    Raises:
        SystemExit: If scores differ by more than the tolerance.
    """
    write_checkpoint(folder, layers=setting.layers, width=setting.width)
    switches = {name: one for name, one in SWITCHES.items() if all(map(has_setting, one.settings))}
    for name in SWITCHES.keys() - switches.keys():
        print(f"{name}: not a setting of this engine, left out", file=sys.stderr)
    results: dict[str, Any] = {}
    with ExitStack() as stack:
        engines = {
            name: stack.enter_context(opened(EngineSubject(folder, **switch.settings)))
            for name, switch in switches.items()
        }
        for name, switch in switches.items():
            switch.model(engines[name].model)
        alone = stack.enter_context(opened(PlainSubject(folder, batch_size=1)))
        for name, passes in setting.workloads().items():
            for items in passes(CHECK):
                for way, switch in switches.items():
                    sent = switch.items(items)
                    check_equal({way: engines[way]}, sent, expected=alone.score(sent))
            results[name] = _measure(engines, switches, passes, rounds=setting.rounds)
    return {"workloads": results, "tables": [_table(results)]}


def _measure(
    engines: Mapping[str, Subject],
    switches: Mapping[str, Switch],
    passes: Passes,
    *,
    rounds: int,
) -> dict[str, Any]:
    sent = {
        (way, number): [switch.items(items) for items in passes(number)]
        for way, switch in switches.items()
        for number in range(-1, rounds)
    }
    before = {way: engine.computed_tokens for way, engine in engines.items()}
    seconds = interleaved(
        {
            way: lambda number, w=way: [engines[w].score(items) for items in sent[w, number]]
            for way in switches
        },
        rounds=rounds,
    )
    tokens = {
        way: round((engine.computed_tokens - before[way]) / (rounds + 1))
        for way, engine in engines.items()
    }
    candidates = sum(len(item.candidates) for items in passes(0) for item in items)
    speeds = {way: candidates / statistics.median(times) for way, times in seconds.items()}
    return {"candidates_per_s": speeds, "computed_tokens": tokens, "seconds": seconds}


def _table(results: Mapping[str, Any]) -> dict[str, Any]:
    ways = list(next(iter(results.values()))["seconds"])
    rows = [[way, *(_cell(result, way) for result in results.values())] for way in ways]
    title = "candidates/s, and speed against everything on, with one technique off at a time"
    return table(title, ["off", *results], rows)


def _cell(result: Mapping[str, Any], way: str) -> str:
    over = ratio(result["seconds"][EVERYTHING_ON], result["seconds"][way])
    return f"{result['candidates_per_s'][way]:.1f} ({over['median']:.2f})"


if __name__ == "__main__":
    main(Setting, run)
