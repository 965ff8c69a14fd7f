"""What a run logged and measured becomes a history and a file, a kill or none."""

from __future__ import annotations

import json
from pathlib import Path

from steerward.jobs.align.results import read_history, write_results


def make_run(folder: Path) -> Path:
    log = [{"step": step, "metrics": {"loss": 1.0}} for step in (1, 2, 2, 3)]
    measured = [
        {"step": 0, "rewards": {"help": [0.0, 1.0, None]}, "characters": [1, 2, 3]},
        {"step": 2, "rewards": {"help": [None] * 3}, "characters": [1, 2, 3]},
    ]
    for name, rows in (("log.jsonl", log), ("evaluations.jsonl", measured)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        # Cut by a kill.
        (folder / name).write_text(text + '{"step": 4, "met')
    return folder


def test_the_history_holds_the_mean_of_each_reward_that_applied(tmp_path: Path) -> None:
    assert read_history(tmp_path / "missing") == []
    history = read_history(make_run(tmp_path))
    assert [(one.iteration, one.rewards) for one in history] == [(0, {"help": 0.5}), (2, {})]


def test_the_file_has_each_step_once_and_in_order(tmp_path: Path) -> None:
    target = tmp_path / "results.jsonl"
    assert write_results(make_run(tmp_path), target) == 5
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert [(row["step"], row["kind"]) for row in rows] == [
        (0, "evaluation"),
        (1, "step"),
        (2, "step"),
        (2, "evaluation"),
        (3, "step"),
    ]
