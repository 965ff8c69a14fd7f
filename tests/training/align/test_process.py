"""The process of a job tells what is wrong with its job file before it loads anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from steerward.protocol.align_work import ALIGN_LINES
from steerward.training.align.process import _Lines

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
    "reward_weight_version": "r1",
    "most_candidates": 8,
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"method": "ppo"}, "method: Input should be 'pama', 'grpo', 'cgpo', 'modpo' or 'mapl'"),
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


def test_a_number_that_is_not_finite_costs_no_more_than_itself() -> None:
    told: list[BaseModel] = []
    lines = _Lines(told.append)
    lines.stepped(3, 9, {"loss": 0.5, "spread": float("nan"), "kl": float("inf")})
    lines.measured(3, {"help": 0.5, "score": float("nan")})
    lines.noted("loss: grpo")
    read = [ALIGN_LINES.validate_json(line.model_dump_json()) for line in told]
    assert read == told
    assert [line.model_dump(exclude={"kind"}) for line in read] == [
        {"step": 3, "steps": 9, "metrics": {"loss": 0.5}},
        {"step": 3, "rewards": {"help": 0.5}},
        {"text": "loss: grpo"},
    ]
