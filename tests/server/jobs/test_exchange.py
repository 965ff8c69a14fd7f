"""Rewards of one iteration are of one reward model, or the job says that they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from steerward.models.source import weight_version
from tests.checkpoints import copy_with_other_heads
from tests.golden_cases import GOLDEN
from tests.server.jobs.running import running_server
from tests.server.jobs.test_running import in_step

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("clean_environment")]

SAMPLING: dict[str, Any] = {
    "prompts_per_iteration": 60,
    "candidates_per_prompt": 4,
    "max_tokens": 64,
    "evaluation_prompts": 0,
}
"""Settings with which it takes a second or more."""


async def test_reward_model_exchanged_while_a_job_samples_ends_the_job_clearly(
    tmp_path: Path, policy_folder: str
) -> None:
    other = copy_with_other_heads(tmp_path / "other")
    async with running_server(tmp_path / "state", policy_folder, weights_dir=[other]) as server:
        job_id = await server.create(**SAMPLING)
        await server.until(job_id, in_step("sampling", done=1))
        body = {"id": "armorm", "path": str(other)}
        answer = await server.http.post("/v1/models", json=body)
        assert answer.status_code == 200, answer.text
        job = await server.end(job_id)
    assert (job["status"], job["error"]["code"]) == ("failed", "invalid_request")
    message = job["error"]["message"]
    assert "scored by different reward models" in message
    for folder in (GOLDEN / "armorm", other):
        assert weight_version(folder) in message
