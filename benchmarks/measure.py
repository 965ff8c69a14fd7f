"""Medians over interleaved rounds, peak memory, and the record that is kept."""

from __future__ import annotations

import json
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers


def interleaved(
    methods: Mapping[str, Callable[[], object]], *, rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Return seconds of each method, round by round.

    Every round runs every method once, so that a slow spell of the machine hits all of them;
    the order alternates between rounds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for number in range(-warm_up, rounds):
        order = list(methods) if number % 2 else list(reversed(list(methods)))
        for name in order:
            started = time.perf_counter()
            methods[name]()
            if number >= 0:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(slow: list[float], fast: list[float]) -> dict[str, float]:
    """Return how many times faster one method is, as the median over rounds and its spread."""
    ratios = sorted(s / f for s, f in zip(slow, fast, strict=True))
    return {"median": statistics.median(ratios), "low": ratios[0], "high": ratios[-1]}


def reset_peak_memory(pid: int | str = "self") -> None:
    """Let the kernel's high-water mark of a process start anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_memory_mib(pid: int | str = "self") -> float:
    """Return the high-water mark of a process's resident memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel does not tell VmHWM")


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
        "command": shlex.join(["python", "-m", _module(), *sys.argv[1:]]),
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def _module() -> str:
    """Return the name under which `python -m` runs this program again."""
    spec = sys.modules["__main__"].__spec__
    return spec.name if spec else Path(sys.argv[0]).stem


def finish(result: Mapping[str, Any], out: Path | None) -> None:
    """Print the result as one line of JSON and keep it if asked to."""
    line = json.dumps(result)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(result, indent=2) + "\n")
    print(line)
