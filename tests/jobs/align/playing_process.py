"""A process that says what one of an optimiser would, made of arithmetic; for tests of its job.

What it does beside is in the job's name: `killed` ends it by a signal at step 3, once, `killed in
each step` in each, and `killed at once` before its first; `failing` raises; `waiting` never ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from steerward.protocol.align_work import (
    AlignDone,
    AlignJob,
    AlignMeasured,
    AlignStep,
    RewardGroup,
    RewardsGiven,
    RewardsWanted,
)
from steerward.protocol.errors import InvalidRequest
from steerward.training.process import Tell, run_process

STEPS = 4
COMPLETIONS = ["red fox", "old dog here"]


def work(content: bytes, tell: Tell) -> None:
    job = AlignJob.model_validate_json(content)
    job.out.mkdir(parents=True, exist_ok=True)
    asking = socket.socket(socket.AF_UNIX)
    asking.connect(str(job.rewards))
    lines = asking.makefile("rwb")
    rows = [json.loads(line) for line in job.rows.read_text().splitlines()]
    checkpoint = job.out / "step"
    begin = int(checkpoint.read_text()) if checkpoint.exists() else 0
    if job.name == "killed at once":
        os.kill(os.getpid(), signal.SIGKILL)
    if begin == 0:
        measure(job, lines, rows, 0, tell)
    for step in range(begin + 1, STEPS + 1):
        rewards = ask(lines, rows, job)
        append(job.out / "log.jsonl", {"step": step, "metrics": {"loss": 1.0 / step}})
        tell(AlignStep(step=step, steps=STEPS, metrics={"loss": 1.0 / step, "help": rewards}))
        checkpoint.write_text(str(step))
        misbehave(job.name, step, resumed=begin > 0)
    measure(job, lines, rows, STEPS, tell)
    (job.out / "policy").mkdir(exist_ok=True)
    (job.out / "policy" / "report.json").write_text('{"version": "trained"}')
    tell(
        AlignDone(steps=STEPS, trained_tokens=STEPS * 5, weight_version="w", rewards={"help": 1.0})
    )


def ask(lines: Any, rows: list[dict[str, Any]], job: AlignJob) -> float:
    """Return the mean of the first objective over the completions of the first row."""
    names = list(job.settings["weights"])
    group = RewardGroup(messages=rows[0]["messages"], completions=COMPLETIONS)
    wanted = RewardsWanted(objectives=names, groups=[group])
    lines.write(wanted.model_dump_json().encode() + b"\n")
    lines.flush()
    (given,) = RewardsGiven.model_validate_json(lines.readline()).rewards
    return sum(one[names[0]] or 0.0 for one in given) / len(given)


def measure(job: AlignJob, lines: Any, rows: list[dict[str, Any]], step: int, tell: Tell) -> None:
    value = ask(lines, rows, job)
    row = {"step": step, "rewards": {"help": [value, None]}, "characters": [3, 4]}
    append(job.out / "evaluations.jsonl", row)
    tell(AlignMeasured(step=step, rewards={"help": value}))


def append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def misbehave(name: str, step: int, *, resumed: bool) -> None:
    if name == "killed in each step" or (name == "killed" and step == 3 and not resumed):
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "failing":
        raise InvalidRequest("the rows do not fit")
    if name == "waiting":
        time.sleep(600)


if __name__ == "__main__":
    sys.exit(run_process("playing_process", work))
