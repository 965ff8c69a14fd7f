"""What the live view shows of a job in each of its states."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from steerward.cli.job_tables import duration, history_table, settings_table
from steerward.cli.job_view import event_line, progress_words, render
from steerward.protocol.fine_tuning import (
    IterationProgress,
    Job,
    JobError,
    JobEvent,
    JobProgress,
)

CREATED = 1_800_000_000
HISTORY = [
    IterationProgress(iteration=0, direction_score=0.1),
    IterationProgress(
        iteration=1,
        sampled=2048,
        accepted=256,
        rewards={"helpfulness": 0.5, "verbosity": 0.4},
        selected_rewards={"helpfulness": 0.7, "verbosity": 0.3},
        loss=1.25,
        kl=0.011,
        direction_score=0.25,
        weight_version="w1",
        seconds={"sampling": 60.0, "training": 65.0},
    ),
    IterationProgress(
        iteration=2,
        sampled=1024,
        accepted=128,
        rewards={"helpfulness": 0.625, "verbosity": 0.35},
        selected_rewards={"helpfulness": 0.8},
    ),
]


def job(status: str, *, progress: JobProgress | None = None, **values: Any) -> Job:
    return Job.model_validate(
        {
            "id": "ftjob-1",
            "model": "pocket-policy",
            "created_at": CREATED,
            "status": status,
            "training_file": "file-1",
            "seed": 0,
            "method": {"type": "rsf", "rsf": {}},
            "progress": progress or JobProgress(iterations=3),
            **values,
        }
    )


def event(number: int, message: str, **values: Any) -> JobEvent:
    return JobEvent(
        **{"id": f"ftevent-{number}", "created_at": CREATED + number, "level": "info", **values},
        message=message,
    )


def shown(job: Job, *events: JobEvent, width: int = 100) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width, color_system=None, force_terminal=False)
    console.print(render(job, events, now=CREATED + 90.0, width=width))
    return file.getvalue()


def row(text: str, start: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.strip().startswith(start)]
    return line.split()


def test_queued_job_waits() -> None:
    text = shown(job("queued"))
    assert "ftjob-1  pocket-policy  queued  for 1 min 30 s" in text
    assert "waiting until the server begins" in text
    assert "%" not in text


def test_sampling_shows_prompts_numbers_and_time_left() -> None:
    progress = JobProgress(
        step="sampling",
        iteration=2,
        iterations=3,
        done=64,
        total=256,
        tokens_per_s=1234.5,
        history=HISTORY,
    )
    text = shown(job("running", progress=progress, estimated_finish=CREATED + 90 + 3700))
    assert "iteration 2/3  sampling" in text
    assert "64/256 prompts" in text
    assert "sampled 1,024  accepted 128 (12%)" in text
    assert "KL 0.011 nats/token" in text
    assert "1,234 tokens/s" in text
    assert "1 h 01 min left" in text


def test_iteration_before_is_shown_until_there_are_samples() -> None:
    history = [*HISTORY, IterationProgress(iteration=3)]
    progress = JobProgress(
        step="evaluating", iteration=2, iterations=3, done=3, total=64, history=history
    )
    text = shown(job("running", progress=progress))
    assert "3/64 prompts" in text
    assert "sampled 1,024  accepted 128 (12%)" in text


def test_rewards_are_beside_those_of_the_first_iteration() -> None:
    progress = JobProgress(step="training", iteration=2, iterations=3, history=HISTORY)
    text = shown(job("running", progress=progress))
    assert "mean reward, iteration 2" in text
    assert row(text, "helpfulness") == ["helpfulness", "0.625", "+0.125", "0.800"]
    assert row(text, "verbosity") == ["verbosity", "0.350", "-0.050", "-"]


def test_history_has_a_row_an_iteration_with_the_change_of_its_score() -> None:
    progress = JobProgress(step="training", iteration=2, iterations=3, history=HISTORY)
    text = shown(job("running", progress=progress))
    assert row(text, "1 ")[-6:] == ["0.250", "+0.150", "2", "min", "05", "s"]
    assert row(text, "1 ")[:5] == ["1", "2,048", "256", "1.250", "0.011"]
    assert row(text, "2 ")[-3:] == ["-", "-", "-"]


@pytest.mark.parametrize("width", [40, 59, 60, 89, 90, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    progress = JobProgress(
        step="sampling", iteration=2, iterations=3, done=1, total=2, history=HISTORY
    )
    text = shown(job("running", progress=progress), event(1, "m " * 200), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert ("loss" in text) == (width >= 90)
    assert ("accepted  " in text) == (width >= 60)


def test_training_counts_steps() -> None:
    progress = JobProgress(step="training", iteration=1, iterations=3, done=3, total=8)
    text = shown(job("running", progress=progress))
    assert "3/8 steps" in text


def test_job_that_paused_itself_says_why() -> None:
    error = JobError(code="not_ready", message="the disk is [full]", param="state_dir")
    text = shown(job("paused", error=error))
    assert "paused" in text
    assert "not_ready: the disk is [full] (at state_dir)" in text


def test_finished_job_names_the_new_policy_and_how_long_it_took() -> None:
    progress = JobProgress(step="done", iteration=3, iterations=3, history=HISTORY)
    text = shown(
        job(
            "succeeded",
            progress=progress,
            fine_tuned_model="ft:pocket-policy:1",
            finished_at=CREATED + 3 * 86400 + 7200,
        )
    )
    assert "succeeded  -> ft:pocket-policy:1  after 3 d 2 h" in text
    assert "1 of 3 iterations done" in text
    assert "left" not in text


def test_last_messages_are_shown_and_metrics_are_not() -> None:
    events = [event(number, f"message {number}") for number in range(8)]
    text = shown(job("running"), *events, event(9, "step", type="metrics"))
    assert "message 2" not in text
    assert [f"message {number}" in text for number in range(3, 8)] == [True] * 5
    assert "step" not in text


def test_texts_of_the_server_are_neither_markup_nor_control_characters() -> None:
    text = shown(job("running"), event(1, "[bold]a\x1b[2Jb\nc[/nothing]"))
    assert "[bold]a [2Jb c[/nothing]" in text
    assert "\x1b" not in text


def test_event_is_one_line_with_its_numbers() -> None:
    line = event_line(event(1, "step\n3", type="metrics", data={"loss": 0.5, "n": 2, "more": {}}))
    assert line.endswith(" info  step 3 loss=0.500 n=2")
    assert "\n" not in line


def test_long_history_keeps_the_first_and_the_last_iterations() -> None:
    history = [IterationProgress(iteration=number) for number in range(40)]
    table = history_table(history, width=80)
    cells = [str(cell) for cell in table.columns[0].cells]
    assert cells == ["0", "...", *(str(number) for number in range(29, 40))]


def test_settings_are_flat_and_without_what_is_not_set() -> None:
    table = settings_table({"iterations": 3, "threshold": None, "training": {"lora": {"rank": 8}}})
    names, values = ([str(cell) for cell in column.cells] for column in table.columns)
    assert dict(zip(names, values, strict=True)) == {"iterations": "3", "training.lora.rank": "8"}


def test_progress_in_words() -> None:
    progress = JobProgress(step="swapping", iteration=2, iterations=3, history=HISTORY)
    assert progress_words(job("running", progress=progress)) == "2/3 swapping"
    assert progress_words(job("failed", progress=progress)) == "1/3"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (3600, "1 h 00 min"), (90_000, "1 d 1 h")],
)
def test_durations_have_two_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words


EVALUATIONS = [
    IterationProgress(iteration=step, rewards={"helpfulness": step / 100, "less_verbosity": -0.5})
    for step in range(0, 101, 20)
]


def aligned(status: str, **values: Any) -> Job:
    progress = JobProgress(
        step="training", iterations=0, done=40, total=100, steps_per_s=0.5, history=EVALUATIONS[:3]
    )
    return job(status, progress=progress, method={"type": "pama", "pama": {}}, **values)


def test_a_method_without_iterations_shows_its_steps() -> None:
    running = aligned("running", estimated_finish=CREATED + 90 + 120)
    text = shown(running)
    assert "iteration" not in text
    assert "40/100 steps" in text
    assert "2.0 s/step" in text
    assert "2 min 00 s left" in text
    assert progress_words(running) == "40/100 steps"
    assert "40 of 100 steps done" in shown(aligned("cancelled"))


def test_its_evaluations_are_rows_with_the_rewards_that_fit() -> None:
    text = shown(aligned("running"))
    assert row(text, "step") == ["step", "helpfulness", "less_verbosity"]
    assert row(text, "40") == ["40", "0.400", "-0.500"]
    narrow = shown(aligned("running"), width=30)
    assert "step  helpfulness\n" in narrow


def test_of_an_optimisers_step_the_rewards_are_shown() -> None:
    data = {"loss": 0.5, "rewards/kind/mean": 0.25, "rewards/kind/std": 1.0, "entropy": 2.0}
    line = event_line(event(1, "step 3 of 4", type="metrics", data=data))
    assert line.endswith(" step 3 of 4 loss=0.500 kind=0.250")
