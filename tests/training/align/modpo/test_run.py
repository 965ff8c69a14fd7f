"""A run's folder says what it is of, and goes on as no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from steerward.protocol.errors import SteerwardError
from steerward.training.align.modpo.run import RunFolder, RunLog

SETTINGS = {"method": "modpo", "name": "half", "objectives": ["helpfulness"]}


def folder(path: Path, identity: str = "a") -> RunFolder:
    return RunFolder(path, {**SETTINGS, "identity": identity})


def test_settings_are_written_and_kept_apart(tmp_path: Path) -> None:
    run = folder(tmp_path / "run")
    assert not run.is_finished
    run.writer()
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["method"] == "modpo"
    with pytest.raises(SteerwardError, match="other pairs, policy or settings"):
        _ = folder(tmp_path / "run", identity="b").is_finished
    (tmp_path / "run" / "policy").mkdir()
    assert run.is_finished


def test_what_was_logged_after_the_checkpoint_is_forgotten(tmp_path: Path) -> None:
    log = RunLog(folder(tmp_path).writer(), identity="a")
    given: Any = (TrainingArguments(str(tmp_path / "none")), TrainerState(), TrainerControl())
    for step in (1, 2, 3):
        given[1].global_step = step
        log.on_log(*given, logs={"loss": 0.5 / step})
    given[1].global_step = 1
    log.on_train_begin(*given)
    (line,) = (tmp_path / "log.jsonl").read_text().splitlines()
    assert json.loads(line) == {"step": 1, "metrics": {"loss": 0.5}}
