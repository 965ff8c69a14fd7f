"""The front of a job is what its answers show, and its judges judge."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.rsf_answers import Answer, kept_answers, paired, rule_of
from benchmarks.rsf_front import Scale, Setting, run, scale_of, summarise
from benchmarks.rsf_judges import SentenceEncoder
from steerward.jobs.rsf.samples import SampleRow, write_samples
from steerward.models.source import POCKET_POLICY, resolve_source

SCALE = Scale(("helpfulness", "verbosity"), (0.0, 1.0), (1.0, 2.0))
ANGLES = (-45.0, 0.0, 45.0)


def answers(
    helpfulness: float, *, seed: int, prompts: int = 30, score: float | None = 0.5
) -> list[Answer]:
    numbers = np.random.default_rng(seed)
    return [
        Answer(
            place=place,
            angle=angle,
            prompt=f"What is {place}?",
            text=f"A number that follows {place - 1}.",
            rewards={"helpfulness": helpfulness + noise, "verbosity": 1.0 + angle / 45},
            direction_score=helpfulness + noise,
            score=score,
        )
        for place in range(prompts)
        for angle, noise in zip(ANGLES, 0.1 * numbers.normal(size=3), strict=True)
    ]


def test_what_has_risen_is_told_with_intervals(tmp_path: Path) -> None:
    plot = tmp_path / "pictures" / "front.png"
    angles, rows = paired({0: answers(0.0, seed=0), 1: answers(1.0, seed=1)})
    result = summarise(rows, angles, SCALE, Setting(plot=str(plot)))
    assert result["num_prompts"] == 30
    assert result["risen_directions"] == 3
    start, last = result["iterations"]
    assert last["gain"]["mean"] == pytest.approx(1.0, abs=0.1)
    assert last["gain"]["low"] < last["gain"]["mean"] < last["gain"]["high"]
    assert last["hypervolume_gain"]["low"] > 0
    assert start["hypervolume_gain"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert last["points"][2]["rewards"]["verbosity"]["mean"] == pytest.approx(0.5)
    assert last["judges"]["own score"]["gain"]["mean"] == 0.0
    assert set(start["judges"]) == {
        "own score",
        "cosine with the prompt",
        "characters",
        "repetition",
    }
    assert [table["rows"][0][0] for table in result["tables"]] == ["start", "-45", "start"]
    assert plot.stat().st_size > 1000


def test_a_job_that_changed_nothing_has_not_risen() -> None:
    same = answers(0.0, seed=0)
    angles, rows = paired({0: same, 1: same})
    result = summarise(rows, angles, SCALE, Setting())
    assert result["risen_directions"] == 0
    assert result["iterations"][1]["gain"] == {"mean": 0.0, "low": 0.0, "high": 0.0}


def test_a_start_without_iterations_has_tables() -> None:
    angles, rows = paired({0: answers(0.0, seed=0, prompts=3)})
    result = summarise(rows, angles, SCALE, Setting())
    assert result["risen_directions"] == 0
    assert result["tables"][0]["rows"][0][2] == ""


def test_a_reward_model_without_a_score_is_no_judge() -> None:
    angles, rows = paired({0: answers(0.0, seed=0, prompts=3, score=None)})
    result = summarise(rows, angles, SCALE, Setting())
    assert "own score" not in result["iterations"][0]["judges"]


def test_prompts_without_an_answer_in_each_iteration_are_left_out() -> None:
    later = [one for one in answers(1.0, seed=1) if (one.place, one.angle) != (4, 0.0)]
    angles, rows = paired({0: answers(0.0, seed=0), 1: later})
    assert angles == list(ANGLES)
    places = [[row[0].place for row in rows[number]] for number in (0, 1)]
    assert places[0] == places[1] == [place for place in range(30) if place != 4]


def test_iterations_that_share_no_prompt_cannot_be_compared() -> None:
    with pytest.raises(SystemExit, match="no prompt was answered"):
        paired({0: answers(0.0, seed=0, prompts=1), 1: []})


@pytest.fixture
def job(tmp_path: Path) -> Callable[[dict[int, float]], Path]:
    """Write a job's answers, by iteration with their direction score."""

    def write(scores: dict[int, float]) -> Path:
        for iteration, score in scores.items():
            folder = tmp_path / "job" / f"iteration-{iteration:03d}"
            folder.mkdir(parents=True)
            rows = [sample(place, index, score) for place in range(4) for index in range(2)]
            write_samples(folder / "evaluation.parquet", rows)
        return tmp_path / "job"

    return write


def sample(place: int, index: int, score: float) -> SampleRow:
    values: dict[str, Any] = {
        "job_id": "ftjob-1",
        "iteration": 0,
        "number": place,
        "prompt_row": place,
        "direction_index": index,
        "direction": {"helpfulness": 0.7071067811865476, "verbosity": (-1, 1)[index] * 0.70710678},
        "sample": 0,
        "sample_seed": 1,
        "prompt": ({"role": "user", "content": f"What is {place}?"},),
        "completion": "A number.",
        "tokens": 4,
        "is_finished": True,
        "rewards": {"helpfulness": score, "verbosity": 0.1},
        "score": score,
        "direction_score": score,
        "policy_weight_version": "a",
        "reward_model": "pocket",
        "reward_weight_version": "b",
    }
    return SampleRow(**values)


def test_answers_of_a_job_are_read_from_its_folder(
    job: Callable[[dict[int, float]], Path], tmp_path: Path
) -> None:
    folder = job({0: 0.0, 1: 0.5})
    found = kept_answers(folder, rule_of("pocket-policy"))
    assert list(found) == [0, 1]
    assert {one.angle for one in found[1]} == {-45.0, 45.0}
    result = run(Setting(job=str(folder)), tmp_path)
    assert result["angles"] == [-45.0, 45.0]
    assert result["objectives"] == ["helpfulness", "verbosity"]
    assert result["iterations"][1]["gain"]["mean"] == pytest.approx(0.5)
    scale = scale_of("pocket", ("helpfulness", "verbosity"))
    reward = result["iterations"][1]["points"][0]["rewards"]["helpfulness"]["mean"]
    assert reward == pytest.approx((0.5 - scale.mean[0]) / scale.std[0])


@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_a_missing_job_is_told(folder: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--job FOLDER"):
        run(Setting(job=folder), tmp_path)


def test_a_job_that_was_not_measured_is_told(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"has no iteration-\*/evaluation.parquet"):
        run(Setting(job=str(tmp_path)), tmp_path)


@pytest.mark.e2e
def test_other_prompts_are_asked_of_each_iteration(tmp_path: Path, prompts_file: Path) -> None:
    """An iteration with the weights of the start gives its answers: the same seeds are used."""
    shutil.copytree(resolve_source(POCKET_POLICY), tmp_path / "job" / "iteration-001" / "policy")
    setting = Setting(
        job=str(tmp_path / "job"),
        prompts=str(prompts_file),
        num_prompts=3,
        angles="-45,45",
        max_tokens=8,
    )
    result = run(setting, tmp_path)
    assert result["num_prompts"] == 3
    assert result["angles"] == [-45.0, 45.0]
    first, second = (
        [one["texts"] for one in result["examples"] if one["iteration"] == number]
        for number in (0, 1)
    )
    assert first == second
    # Batches of scoring differ, and so does the last bit.
    last = result["iterations"][1]
    assert last["gain"]["mean"] == pytest.approx(0.0, abs=1e-5)
    assert 0 < last["judges"]["characters"]["value"]["mean"] < 100


@pytest.fixture
def prompts_file(tmp_path: Path) -> Path:

    path = tmp_path / "prompts.jsonl.gz"
    rows = [
        {"prompt": prompt, "split": "test", "source": "just_eval"}
        for prompt in ("Who is Larry Page?", "What is a mutex?", "How do plants drink?")
    ]
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def test_answers_to_the_question_are_nearer_than_others() -> None:
    encoder = SentenceEncoder()
    question = "How long should I boil an egg?"
    near = "Boil an egg for six minutes for a soft yolk."
    far = "Canberra is the capital of Australia."
    cosines = encoder.cosines([question, question, question], [near, far, question])
    assert cosines[0] > cosines[1] + 0.4
    assert cosines[2] == pytest.approx(1.0)
    # What it shares a batch with does not matter.
    (alone,) = encoder.cosines([question], [near])
    assert alone == pytest.approx(cosines[0], abs=1e-5)
