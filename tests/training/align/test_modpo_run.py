"""A run's folder says what it is of, and goes on as no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from steerward.protocol.errors import SteerwardError
from steerward.training.align.modpo_run import RunFolder, RunLog


def test_settings_are_written_and_kept_apart(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run", {"method": "modpo", "identity": "a"})
    assert not run.is_finished
    run.open()
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["method"] == "modpo"
    with pytest.raises(SteerwardError, match="other pairs, policy or settings"):
        RunFolder(tmp_path / "run", {"identity": "b"}).check()
    (tmp_path / "run" / "policy").mkdir()
    assert run.is_finished


def test_log_is_one_line_a_step(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, {"identity": "a"})
    run.write_log([{"step": 1, "loss": 0.5}])
    run.append_log({"step": 2, "loss": 0.25, "epoch": 1})
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[1] == {"step": 2, "metrics": {"loss": 0.25, "epoch": 1.0}}


def test_what_was_logged_after_the_checkpoint_is_forgotten(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, {"identity": "a"})
    run.write_log([{"step": step, "loss": 0.5} for step in (1, 2, 3)])
    state = TrainerState(log_history=[{"step": 1, "loss": 0.5}])
    log = RunLog(run, identity="a")
    log.on_train_begin(TrainingArguments(str(tmp_path / "none")), state, TrainerControl())
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 1


def test_evaluations_have_their_steps(tmp_path: Path) -> None:
    run = RunFolder(tmp_path, {"identity": "a"})
    found = {"rewards": {"helpfulness": [0.1, None]}, "characters": [3, 4]}
    run.write_evaluations([(0, found), (20, found)])
    lines = (tmp_path / "evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [0, 20]
    assert json.loads(lines[1])["rewards"] == found["rewards"]
