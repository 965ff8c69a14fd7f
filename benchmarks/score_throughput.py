"""How fast scoring is: engine and server against plain transformers, same weights, same run.

    python -m benchmarks.score_throughput [--rounds N] [--out FILE.json]

Two workloads on an 8-layer, 512-wide Llama with random weights: single candidates of ragged
lengths, and eight candidates behind each prompt. Scores are checked equal before anything is
timed; a difference ends the run without a figure. Peak memory is taken of each way in a process
of its own, that holds nothing else, from after start-up on.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import (
    environment,
    finish,
    interleaved,
    peak_memory_mib,
    ratio,
    reset_peak_memory,
)
from benchmarks.subjects import ALONE, ENGINE, HTTP, PADDED, SUBJECTS, Subject
from benchmarks.workload import Item, grouped_items, single_items, write_checkpoint

# float32 sums in another order; scores here have a spread of about 0.3.
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Setting:
    """What is measured; published figures say in their command where they differ."""

    rounds: int = 7
    groups: int = 8
    """Prompts with 8 candidates each."""
    singles: int = 64
    """Prompts with one candidate each."""
    layers: int = 8
    width: int = 512

    def workloads(self) -> dict[str, list[Item]]:
        """Return the items of each workload, the same in every process."""
        return {
            "groups of 8": grouped_items(self.groups),
            "ragged singles": single_items(self.singles),
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
        subjects = {
            name: stack.enter_context(closing(build(folder))) for name, build in SUBJECTS.items()
        }
        for name, items in workloads.items():
            results[name] = measure(subjects, items, rounds=setting.rounds)
    for name in workloads:
        results[name]["peak_memory_mib"] = {
            method: memory_of(method, workload=name, setting=setting, folder=folder)
            for method in SUBJECTS
        }
    return {"setting": asdict(setting), **results}


def check_equal(subjects: Mapping[str, Subject], items: Sequence[Item]) -> dict[str, float]:
    """Return the largest difference of each way from one sequence at a time.

    Raises:
        SystemExit: If one is above the tolerance.
    """
    scores = {name: subject.score(items) for name, subject in subjects.items()}
    expected = scores.pop(ALONE)
    errors = {
        name: max(abs(a - b) for a, b in zip(found, expected, strict=True))
        for name, found in scores.items()
    }
    # Not `error > TOLERANCE`, which NaN would pass.
    if not all(error <= TOLERANCE for error in errors.values()):
        raise SystemExit(f"scores differ, so nothing is timed: {errors}")
    return errors


def measure(
    subjects: Mapping[str, Subject], items: Sequence[Item], *, rounds: int
) -> dict[str, Any]:
    """Return throughputs and ratios of one workload."""
    errors = check_equal(subjects, items)
    methods: dict[str, Callable[[], object]] = {
        name: partial(subject.score, items) for name, subject in subjects.items()
    }
    seconds = interleaved(methods, rounds=rounds)
    candidates = sum(len(item.candidates) for item in items)
    return {
        "candidates": candidates,
        "max_abs_error": errors,
        "candidates_per_s": {n: candidates / statistics.median(s) for n, s in seconds.items()},
        "engine_over_padded": ratio(seconds[PADDED], seconds[ENGINE]),
        "engine_over_one_at_a_time": ratio(seconds[ALONE], seconds[ENGINE]),
        "http_over_engine_throughput": ratio(seconds[ENGINE], seconds[HTTP]),
        "seconds": seconds,
    }


def memory_of(method: str, *, workload: str, setting: Setting, folder: Path) -> float:
    """Return the peak memory in MiB of one way on one workload, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.score_throughput", "--memory", method]
    options = [f"--{name}={value}" for name, value in asdict(setting).items()]
    place = ["--workload", workload, "--checkpoint", str(folder)]
    done = subprocess.run(
        [*command, *place, *options], stdout=subprocess.PIPE, text=True, check=True
    )
    return float(done.stdout)


def print_memory(method: str, *, workload: str, setting: Setting, folder: Path) -> None:
    """Print the peak memory of the process that holds the model, start-up left out."""
    items = setting.workloads()[workload]
    with closing(SUBJECTS[method](folder)) as subject:
        reset_peak_memory(subject.pid)
        subject.score(items)
        print(peak_memory_mib(subject.pid))


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
    for field in fields(Setting):
        parser.add_argument(f"--{field.name}", type=int, default=field.default)
    parser.add_argument("--out", type=Path, help="file that keeps the result")
    parser.add_argument("--memory", choices=SUBJECTS, help="print the peak memory of one way only")
    parser.add_argument("--workload", help="with --memory: on which workload")
    parser.add_argument("--checkpoint", type=Path, help="with --memory: folder of the model")
    options = parser.parse_args()
    setting = Setting(**{field.name: getattr(options, field.name) for field in fields(Setting)})
    if options.memory:
        place = {"workload": options.workload, "folder": options.checkpoint}
        print_memory(options.memory, setting=setting, **place)
        return
    with tempfile.TemporaryDirectory() as folder:
        result = {"benchmark": "score_throughput", **environment(), **run(setting, Path(folder))}
    for name in setting.workloads():
        print_table(name, result[name])
    finish(result, options.out)


if __name__ == "__main__":
    main()
