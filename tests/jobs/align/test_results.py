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
    assert read_history(tmp_path / "missing", evaluation_steps=2).rows == []
    history = read_history(make_run(tmp_path), evaluation_steps=2)
    assert [(one.iteration, one.rewards) for one in history.rows] == [(0, {"help": 0.5}), (2, {})]


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


def test_what_is_done_again_after_a_checkpoint_counts_once(tmp_path: Path) -> None:
    steps = (1, 2, 3, 4, 2, 3, 3)
    rows = [{"step": step, "metrics": {"place": place}} for place, step in enumerate(steps)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    target = tmp_path / "results.jsonl"
    assert write_results(tmp_path, target) == 3
    found = [json.loads(line) for line in target.read_text().splitlines()]
    assert [(row["step"], row["metrics"]["place"]) for row in found] == [(1, 0), (2, 4), (3, 6)]


def test_a_line_ends_where_it_ends_and_nowhere_else(tmp_path: Path) -> None:
    name = "reward\u2028of\x85two\x0blines"
    row = {"step": 0, "rewards": {name: [1.0]}, "characters": [1]}
    text = json.dumps(row, ensure_ascii=False) + "\n"
    (tmp_path / "evaluations.jsonl").write_text(text, encoding="utf-8")
    assert read_history(tmp_path, evaluation_steps=2).rows[0].rewards == {name: 1.0}
    target = tmp_path / "results.jsonl"
    assert write_results(tmp_path, target) == 1
    assert json.loads(target.read_text(encoding="utf-8"))["rewards"] == {name: [1.0]}
