"""Jobs of a whole server: run, stopped, taken up again, and what is served meanwhile."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.rsf_jobs import selected_set
from tests.server.jobs.running import RunningServer, running_server

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("clean_environment")]


async def test_two_iterations_over_http(tmp_path: Path, policy_folder: str) -> None:
    async with running_server(tmp_path / "state", policy_folder) as server:
        job_id = await server.create()
        job = await server.end(job_id)
        print(json.dumps(job, indent=1))
        print("\n".join(await server.messages(job_id)))
        assert job["status"] == "succeeded"
