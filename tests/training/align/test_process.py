"""The process of a job tells what is wrong with its job file before it loads anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
JOB: dict[str, Any] = {
    "method": "pama",
    "settings": {},
    "base": "/nowhere",
    "rows": "/nowhere",
    "validation": None,
    "out": "/nowhere",
    "name": "job",
    "rewards": "/nowhere",
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"method": "ppo"}, "method: Input should be 'pama', 'grpo', 'cgpo' or 'modpo'"),
        ({"settings": {"steps": 0}}, "steps: Input should be greater than or equal to 1"),
    ],
)
def test_a_wrong_job_is_told_with_its_place(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "job.json"
    path.write_text(json.dumps({**JOB, **change}))
    done = subprocess.run(
        [sys.executable, "-m", "steerward.training.align.process", str(path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    failure = json.loads(line)
    assert (failure["failed"], failure["message"]) == ("ValidationError", reason)
