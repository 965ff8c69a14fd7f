"""Medians over interleaved rounds, peak memory, and what a figure depends on."""

from __future__ import annotations

import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers


def orders(names: Sequence[str], *, rounds: int, warm_up: int = 1) -> Iterator[tuple[int, str]]:
    """Yield which method runs next, with the number of its round; warm-up rounds are below 0.

    Every round runs every method once, so that a slow spell of the machine hits all of them;
    the order alternates between rounds.
    """
    for number in range(-warm_up, rounds):
        for name in names if number % 2 else reversed(names):
            yield number, name


def timed(method: Callable[[], object]) -> float:
    """Return the seconds that a method takes."""
    started = time.perf_counter()
    method()
    return time.perf_counter() - started


def interleaved(
    methods: Mapping[str, Callable[[int], object]], *, rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Return seconds of each method, round by round, in the order of `orders`.

    Args:
        methods: Each is told the number of the round.
        rounds: How many are timed.
        warm_up: How many go before.
    """
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for number, name in orders(list(methods), rounds=rounds, warm_up=warm_up):
        took = timed(partial(methods[name], number))
        if number >= 0:
            seconds[name].append(took)
    return seconds


def ratio(slow: Sequence[float], fast: Sequence[float]) -> dict[str, float]:
    """Return how many times faster one method is, as the median over rounds and its spread."""
    ratios = sorted(s / f for s, f in zip(slow, fast, strict=True))
    return {"median": statistics.median(ratios), "low": ratios[0], "high": ratios[-1]}


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least a share of all do not exceed; None of no values."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def reset_peak_memory(pid: int | str = "self") -> None:
    """Let the kernel's high-water mark of a process start anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_memory_mib(pid: int | str = "self") -> float:
    """Return the high-water mark of a process's resident memory."""
    return _status_mib(pid, "VmHWM")


def resident_memory_mib(pid: int | str = "self") -> float:
    """Return the resident memory of a process."""
    return _status_mib(pid, "VmRSS")


def _status_mib(pid: int | str, key: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"the kernel does not tell {key}")


def environment() -> dict[str, Any]:
    """Return what a figure depends on."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "commit": commit.stdout.strip(),
        "command": shlex.join(["python", "-m", module_name(), *sys.argv[1:]]),
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def module_name() -> str:
    """Return the name under which `python -m` runs this program again."""
    spec = sys.modules["__main__"].__spec__
    return spec.name if spec else Path(sys.argv[0]).stem
