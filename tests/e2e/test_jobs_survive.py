"""A job whose server and whose trainer are killed ends as one that nobody disturbed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from steerward.protocol.fine_tuning import Job
from tests.e2e.test_serve import Server
from tests.golden_cases import GOLDEN
from tests.policies import ARMORM_RULE, save_policy
from tests.rsf_jobs import SETTINGS, prompt_lines, selected_in

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

WAIT_S = 240.0
SLOW = {"prompts_per_iteration": 96, "candidates_per_prompt": 4, "max_tokens": 48}
"""Settings with which there is time for a kill in the middle of the sampling."""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return save_policy(tmp_path / "tiny", rule=ARMORM_RULE)


@contextmanager
def serving(policy: Path, state: Path) -> Iterator[Server]:
    server = Server(
        *("--reward-model", str(GOLDEN / "armorm"), "--policy", str(policy)),
        *("--policy-device", "cpu", "--state-dir", str(state), "--job-lease-s", "1"),
    )
    try:
        yield server
    finally:
        server.stop()


def create(server: Server) -> str:
    """Upload prompts and create a job, as users of OpenAI's client do."""
    with OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        file = client.files.create(file=("prompts.jsonl", prompt_lines(120)), purpose="fine-tune")
        job = client.fine_tuning.jobs.create(
            model="tiny",
            training_file=file.id,
            method={"type": "rsf", "rsf": {**SETTINGS, **SLOW}},  # pyright: ignore
            seed=5,
        )
    return job.id


def until(server: Server, job_id: str, reached: Callable[[Job], bool]) -> Job:
    """Return the job when something is so."""
    deadline = time.monotonic() + WAIT_S
    with httpx.Client(base_url=server.url, timeout=60) as http:
        while True:
            answer = http.get(f"/v1/fine_tuning/jobs/{job_id}")
            assert answer.status_code == 200, answer.text
            job = Job.model_validate_json(answer.content)
            if reached(job):
                return job
            assert job.status in ("queued", "running"), (job, "".join(server.lines)[-4000:])
            assert time.monotonic() < deadline, job
            time.sleep(0.01)


def in_step(step: str, iteration: int) -> Callable[[Job], bool]:
    def reached(job: Job) -> bool:
        now = job.progress
        # One prompt, or one optimiser step, into it.
        return (now.step, now.iteration) == (step, iteration) and now.done >= 1

    return reached


def has_succeeded(job: Job) -> bool:
    return job.status == "succeeded"


def trainers_of(server: Server) -> list[int]:
    """Return the processes that fine-tune for a server."""
    found: list[int] = []
    for path in Path(f"/proc/{server.process.pid}/task").glob("*/children"):
        for child in path.read_text().split():
            if b"steerward.training.sft" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


def messages(server: Server, job_id: str) -> list[str]:
    with httpx.Client(base_url=server.url, timeout=60) as http:
        answer = http.get(f"/v1/fine_tuning/jobs/{job_id}/events", params={"limit": 100})
    return [event["message"] for event in answer.json()["data"]]


def test_killed_server_and_trainer_lose_nothing(policy: Path, tmp_path: Path) -> None:
    state = tmp_path / "killed"
    with serving(policy, state) as server:
        job_id = create(server)
        until(server, job_id, in_step("sampling", 1))
        server.process.kill()
    with serving(policy, state) as server:
        until(server, job_id, in_step("training", 1))
        server.process.kill()
    with serving(policy, state) as server:
        until(server, job_id, in_step("training", 2))
        (trainer,) = trainers_of(server)
        os.kill(trainer, signal.SIGKILL)
        job = until(server, job_id, has_succeeded)
        told = messages(server, job_id)
        assert any("killed by signal 9" in one and "started again" in one for one in told)
        assert len(job.result_files) == 1
        assert job.fine_tuned_model is not None
        answers(server, job.fine_tuned_model)
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(timeout=60)
    # What it made is served after a restart, too; the same server runs the undisturbed job.
    with serving(policy, state) as server:
        answers(server, job.fine_tuned_model)
        undisturbed = create(server)
        other = until(server, undisturbed, has_succeeded)
    for iteration in (1, 2):
        expected = selected_in(state / "jobs" / undisturbed, iteration)
        assert len(expected) > 50
        assert selected_in(state / "jobs" / job_id, iteration) == expected
    assert [one.sampled_tokens for one in job.progress.history] == [
        one.sampled_tokens for one in other.progress.history
    ]
    assert job.trained_tokens == other.trained_tokens
    versions = [one.weight_version for one in job.progress.history]
    assert versions == [one.weight_version for one in other.progress.history]


def answers(server: Server, model: str) -> None:
    """Check that a model answers, as soon as it is loaded and the policy is warm."""
    deadline = time.monotonic() + WAIT_S
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=10) as client:
        while model not in [one.id for one in client.models.list()]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        completion = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Hello"}], max_tokens=8
        )
    assert completion.model == model
