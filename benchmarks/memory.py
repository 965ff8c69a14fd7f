"""Peak memory of one way to score, in a process that holds nothing else.

``python -m benchmarks.memory WAY CHECKPOINT ITEMS.json`` prints it in MiB, start-up left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.measure import peak_memory_mib, reset_peak_memory
from benchmarks.subjects import opened
from benchmarks.ways import WAYS
from benchmarks.workload import Item


def memory_of(way: str, folder: Path, items: Sequence[Item]) -> float:
    """Return the peak memory in MiB of one of `WAYS` on a workload."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump([asdict(item) for item in items], file)
        file.flush()
        command = [sys.executable, "-m", "benchmarks.memory", way, str(folder), file.name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    """Print the peak memory of the process that holds the model."""
    way, folder, path = sys.argv[1:]
    items = [Item(**one) for one in json.loads(Path(path).read_text())]
    with opened(WAYS[way](Path(folder))) as subject:
        reset_peak_memory(subject.pid)
        subject.score(items)
        print(peak_memory_mib(subject.pid))


if __name__ == "__main__":
    main()
