"""Which prompts a job is trained and measured on."""

from __future__ import annotations

import json
from pathlib import Path

from steerward.jobs.rsf.running import LoopInput, Prompts
from steerward.protocol.rsf import RsfSettings


def write(path: Path, prompts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    return path


def read(folder: Path, training: list[str], validation: list[str] | None = None) -> Prompts:
    return Prompts.read(
        LoopInput(
            job_id="job",
            settings=RsfSettings(evaluation_prompts=3),
            seed=1,
            prompts=write(folder / "training.jsonl", training),
            validation_prompts=write(folder / "validation.jsonl", validation)
            if validation is not None
            else None,
            sft=None,
            base=folder,
            folder=folder,
        )
    )


def test_equal_prompts_are_held_out_together(tmp_path: Path) -> None:
    found = read(tmp_path, [f"Question {number // 2}?" for number in range(60)])
    trained = [found.rows[row] for row in found.training]
    assert len(found.held_out) == 3
    assert len(trained) == 54
    assert not [prompt for prompt in found.held_out if prompt in trained]
    assert found.overlap == 0


def test_prompts_of_the_validation_file_that_are_trained_on_are_counted(tmp_path: Path) -> None:
    training = ["one", "two", "three", "three"]
    found = read(tmp_path, training, ["two", "new", "three", "one"])
    assert list(found.training) == [0, 1, 2, 3]
    assert [prompt[0]["content"] for prompt in found.held_out] == ["two", "new", "three"]
    assert found.overlap == 2
