"""The folder of a run: nothing is lost to a kill, and nothing is read that is no run."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from steerward.protocol.errors import DatasetRefused, InvalidRequest, NonFiniteScore
from steerward.training.align.run_folder import (
    EVALUATIONS_FILE,
    LOG_FILE,
    SETTINGS_FILE,
    RunWriter,
    read_run,
)

SETTINGS: dict[str, Any] = {
    "method": "pama",
    "name": "first",
    "objectives": ["kind", "short"],
    "seed": 3,
    "more": Path("somewhere"),
}
REWARDS = {"kind": [0.5, None], "short": [1.0, -1.0]}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", SETTINGS)
    writer.log(1, {"loss": 0.5, "ratio": math.nan})
    writer.evaluate(0, rewards=REWARDS, characters=[10, 20])
    run = read_run(tmp_path / "run")
    assert run.settings.method == "pama"
    assert run.settings.objectives == ("kind", "short")
    assert run.settings.model_extra == {"seed": 3, "more": "somewhere"}
    assert run.log[0].metrics == {"loss": 0.5, "ratio": None}
    assert run.evaluations[0].rewards == REWARDS
    assert run.evaluations[0].characters == [10, 20]


def test_line_that_a_kill_cut_short_is_left_out_then_overwritten(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, SETTINGS)
    writer.log(1, {"loss": 0.5})
    with (tmp_path / LOG_FILE).open("a") as file:
        file.write('{"step": 2, "metr')
    assert [one.step for one in read_run(tmp_path).log] == [1]
    RunWriter(tmp_path, SETTINGS).log(2, {"loss": 0.25})
    assert [one.metrics["loss"] for one in read_run(tmp_path).log] == [0.5, 0.25]


def test_steps_that_were_done_again_count_as_they_went_last(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, SETTINGS)
    for step, loss in [(1, 0.1), (2, 0.2), (3, 0.3), (2, 0.25)]:
        writer.log(step, {"loss": loss})
    assert {one.step: one.metrics["loss"] for one in read_run(tmp_path).log} == {1: 0.1, 2: 0.25}


def test_what_came_after_a_checkpoint_is_dropped(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, SETTINGS)
    for step in (0, 5, 10):
        writer.log(step, {"loss": 1.0})
        writer.evaluate(step, rewards=REWARDS, characters=[1, 2])
    writer.drop_after(5)
    run = read_run(tmp_path)
    assert [one.step for one in run.log] == [one.step for one in run.evaluations] == [0, 5]


def test_folder_of_another_run_is_not_written_to(tmp_path: Path) -> None:
    RunWriter(tmp_path, SETTINGS)
    RunWriter(tmp_path, {**SETTINGS, "seed": 4})
    with pytest.raises(InvalidRequest, match="holds a run with name 'first', not 'second'"):
        RunWriter(tmp_path, {**SETTINGS, "name": "second"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": []}, "objectives"),
        ({"objectives": ["a", "a"]}, "repeat a name"),
        ({"name": ""}, "name"),
    ],
)
def test_settings_that_say_too_little_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message):
        RunWriter(tmp_path, {**SETTINGS, **changes})


def test_evaluation_must_have_a_number_or_none_for_everything(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, SETTINGS)
    with pytest.raises(NonFiniteScore, match="'kind' of held-out prompt 1 is nan"):
        writer.evaluate(0, rewards={**REWARDS, "kind": [0.0, math.nan]}, characters=[1, 2])
    with pytest.raises(InvalidRequest, match="step 4 lacks short"):
        writer.evaluate(4, rewards={"kind": [0.0]}, characters=[1])
    with pytest.raises(InvalidRequest, match="2 rewards of 'kind' for 1 answers"):
        writer.evaluate(0, rewards=REWARDS, characters=[1])
    assert not (tmp_path / EVALUATIONS_FILE).exists()


def test_folder_that_is_no_run_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DatasetRefused, match="is no folder of a run: it has no settings.json"):
        read_run(tmp_path)
    (tmp_path / SETTINGS_FILE).write_text(json.dumps({"method": "pama"}))
    with pytest.raises(DatasetRefused, match="settings.json: .*name"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not JSON", "line 2: "),
        (
            '{"step": 5, "rewards": {"kind": [1.0, 2.0]}, "characters": [1, 2]}',
            "no rewards of shor",
        ),
        (
            '{"step": 5, "rewards": {"kind": [1.0], "short": [1.0]}, "characters": [1]}',
            "step 5: 1 prompts, step 0 has 2",
        ),
    ],
    ids=["broken", "objective missing", "other prompts"],
)
def test_whole_line_that_does_not_fit_is_refused(tmp_path: Path, line: str, message: str) -> None:
    writer = RunWriter(tmp_path, SETTINGS)
    writer.evaluate(0, rewards=REWARDS, characters=[1, 2])
    with (tmp_path / EVALUATIONS_FILE).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DatasetRefused, match=message):
        read_run(tmp_path)


def test_reading_loads_no_torch() -> None:
    code = (
        "import sys, steerward.training.align.run_folder\n"
        "assert not {'torch', 'transformers', 'trl'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
