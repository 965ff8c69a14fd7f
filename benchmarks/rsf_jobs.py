"""A server of its own with a policy and a reward model, and its fine-tuning jobs over HTTP."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from benchmarks.served import Process
from steerward.protocol.fine_tuning import FINAL_STATUSES, Job

POLICY = "bench"
"""Name that the policy is served under."""
JOBS = "/v1/fine_tuning/jobs"
_DEADLINE_S = 3600.0


class JobServer:
    """A server, stopped by `close`.

    Args:
        state: Its state folder.
        policy: Checkpoint.
        reward_model: Checkpoint.
        running: Completions that it draws at once.
    """

    def __init__(self, state: Path, *, policy: str, reward_model: str, running: int) -> None:
        command = [sys.executable, "-m", "steerward", "serve", "--port", "0", "--device", "cpu"]
        command += ["--policy", policy, "--policy-name", POLICY, "--reward-model", reward_model]
        command += ["--state-dir", str(state), "--max-running-completions", str(running)]
        command += ["--max-waiting-completions", "8192"]
        self._state = state
        self._process = Process(command, variables={"STEERWARD_JOBS": "true"})
        self.url = self._process.url
        self._client = httpx.Client(base_url=self.url, timeout=600)

    def create(self, prompts: Sequence[str], *, seed: int = 0, **rsf: Any) -> Job:
        """Upload prompts, and queue a job on them with settings of `RsfSettings`."""
        rows = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts)
        file = self._send(
            "/v1/files",
            data={"purpose": "fine-tune"},
            files={"file": ("prompts.jsonl", rows.encode())},
        )
        body = {
            "model": POLICY,
            "training_file": file["id"],
            "seed": seed,
            "method": {"type": "rsf", "rsf": rsf},
        }
        return Job.model_validate(self._send(JOBS, json=body))

    def wait(self, job_id: str, until: Callable[[Job], bool], *, every_s: float = 0.25) -> Job:
        """Return a job as soon as it is as wanted.

        Raises:
            RuntimeError: If it failed, or takes too long.
        """
        deadline = time.monotonic() + _DEADLINE_S
        while time.monotonic() < deadline:
            answer = self._client.get(f"{JOBS}/{job_id}")
            job = Job.model_validate(answer.raise_for_status().json())
            if job.status in ("failed", "paused"):
                raise RuntimeError(f"the job is {job.status}: {job.error}")
            if until(job):
                return job
            time.sleep(every_s)
        raise RuntimeError(f"the job {job_id} took longer than {_DEADLINE_S:,.0f} s")

    def cancel(self, job_id: str) -> None:
        """End a job, and return when it has ended."""
        self._send(f"{JOBS}/{job_id}/cancel")
        self.wait(job_id, lambda job: job.status in FINAL_STATUSES)

    def folder(self, job_id: str) -> Path:
        """Return the folder of a job."""
        return self._state / "jobs" / job_id

    def close(self) -> None:
        """End the server."""
        self._client.close()
        self._process.stop()

    def _send(self, path: str, **content: Any) -> Any:
        answer = self._client.post(path, **content)
        if answer.status_code != 200:
            raise RuntimeError(f"{path} answered {answer.status_code}: {answer.text[:300]}")
        return answer.json()
