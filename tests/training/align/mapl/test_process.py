"""Two processes whose rows have different numbers of conversations compute one loss."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.policies import save_policy
from tests.training.align.mapl import process


@pytest.mark.e2e
@pytest.mark.parametrize("kind", ["policy", "reward"])
def test_two_processes_compute_the_loss_and_the_metrics_of_one(tmp_path: Path, kind: str) -> None:
    """TRL gathers a number for each pair of conversations, of which one process had more."""
    base = save_policy(tmp_path / "base")
    save_policy(tmp_path / "reference", seed=1)
    whole = process.told(process.trainer_of(kind, base, tmp_path / "one"), range(6))
    found = _told_by_two(kind, base, tmp_path)
    mean = sum(one["loss"] for one in found) / 2
    assert mean == pytest.approx(whole["loss"], rel=1e-4)
    assert found[0]["metrics"].keys() == whole["metrics"].keys()
    for name, values in whole["metrics"].items():
        for one in found:
            assert one["metrics"][name] == pytest.approx(values, rel=1e-4, abs=1e-5), name


def _told_by_two(kind: str, base: Path, work: Path) -> list[dict[str, Any]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, "-m", process.__name__, kind, str(base), str(work)]
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    printed = [process.communicate(timeout=200)[0] for process in processes]
    return [json.loads(text.splitlines()[-1]) for text in printed]
