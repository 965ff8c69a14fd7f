"""What a lower precision of the backbone gives and costs: speed, error, and order of candidates.

    python -m benchmarks.dtypes [--dtypes float32,bfloat16] [--rounds N] [--out FILE.json]

The same checkpoint in each type through the engine: one with random weights, and pocket, the model
in the package, on real texts. The first type is checked against plain transformers and is what the
others are compared with. Order is that of two candidates of one prompt: the share of such pairs
that a type puts as the first type does; Kendall's tau is twice that share less one.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from benchmarks.command import main, table
from benchmarks.dialogues import dialogues
from benchmarks.measure import interleaved, ratio
from benchmarks.subjects import EngineSubject, PlainSubject, Subject, has_setting, opened
from benchmarks.throughput import CHECK, check_equal
from benchmarks.workload import Item, Workload, groups_of_8, write_checkpoint
from steerward.models.source import POCKET, resolve_source
from steerward.protocol.errors import SteerwardError


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured."""

    rounds: int = 5
    dtypes: str = "float32,bfloat16"
    """Of the model loader, with commas between them; the first is what others are compared with."""
    groups: int = 8
    questions: int = 16
    """Of the real texts, with 5 candidates each."""
    layers: int = 8
    width: int = 512


def run(setting: Setting, folder: Path) -> dict[str, Any]:
    """Return speed, error and order for each checkpoint and type.

    Raises:
        SystemExit: If scores of the first type differ from those of plain transformers.
    """
    write_checkpoint(folder, layers=setting.layers, width=setting.width)
    subjects: dict[str, tuple[Path, Workload]] = {
        "random weights": (folder, groups_of_8(setting.groups)),
        "pocket": (resolve_source(POCKET), lambda _: dialogues()[: setting.questions]),
    }
    models = {
        name: _measure(source, workload, setting) for name, (source, workload) in subjects.items()
    }
    tables = [_table(name, result) for name, result in models.items()]
    return {"models": models, "tables": tables}


def _measure(source: Path, workload: Workload, setting: Setting) -> dict[str, Any]:
    items = workload(CHECK)
    with ExitStack() as stack:
        engines: dict[str, Subject] = {}
        for dtype in setting.dtypes.split(","):
            if engine := _engine(source, dtype):
                engines[dtype] = stack.enter_context(opened(engine))
        first, *_ = engines
        with opened(PlainSubject(source, batch_size=1)) as alone:
            check_equal({first: engines[first]}, items, expected=alone.score(items))
        scores = {dtype: engine.score(items) for dtype, engine in engines.items()}
        rounds = {number: workload(number) for number in range(-1, setting.rounds)}
        seconds = interleaved(
            {dtype: lambda n, e=engine: e.score(rounds[n]) for dtype, engine in engines.items()},
            rounds=setting.rounds,
        )
    return {
        "candidates": len(scores[first]),
        "max_abs_error": {
            dtype: max(abs(a - b) for a, b in zip(found, scores[first], strict=True))
            for dtype, found in scores.items()
        },
        "order_agreement": {
            dtype: order_agreement(items, scores[first], found) for dtype, found in scores.items()
        },
        "score_spread": statistics.pstdev(scores[first]),
        "seconds": seconds,
    }


def _engine(source: Path, dtype: str) -> EngineSubject | None:
    # The texts are the same in every round: nothing may be kept of them.
    settings = {"prefix_cache_bytes": 0} if has_setting("prefix_cache_bytes") else {}
    try:
        return EngineSubject(source, dtype=dtype, **settings)
    except SteerwardError as error:
        print(f"{dtype}: left out, {error}", file=sys.stderr)
        return None


def order_agreement(
    items: Sequence[Item], expected: Sequence[float], found: Sequence[float]
) -> float:
    """Return the share of pairs of candidates of one prompt that both put in the same order."""
    agreed: list[bool] = []
    first = 0
    for item in items:
        places = range(first, first + len(item.candidates))
        for one, other in combinations(places, 2):
            agreed.append(
                (expected[one] > expected[other]) == (found[one] > found[other])
                and (expected[one] < expected[other]) == (found[one] < found[other])
            )
        first += len(item.candidates)
    return sum(agreed) / len(agreed)


def _table(name: str, result: Mapping[str, Any]) -> dict[str, Any]:
    seconds = result["seconds"]
    first = next(iter(seconds))
    rows: list[list[str]] = []
    for dtype, times in seconds.items():
        over = ratio(seconds[first], times)
        rows.append(
            [
                dtype,
                f"{result['candidates'] / statistics.median(times):.1f}",
                f"{over['median']:.2f} ({over['low']:.2f} to {over['high']:.2f})",
                f"{result['max_abs_error'][dtype]:.1e}",
                f"{result['order_agreement'][dtype]:.1%}",
            ]
        )
    title = (
        f"{name}: {result['candidates']:,} candidates, standard deviation of scores "
        f"{result['score_spread']:.2f}"
    )
    return table(title, ["dtype", "candidates/s", "speed", "largest error", "same order"], rows)


if __name__ == "__main__":
    main(Setting, run)
