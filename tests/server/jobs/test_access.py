"""Who may use files and jobs, and a server that has none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from steerward.config import ServeConfig
from tests.server.conftest import client_of
from tests.server.jobs.serving import FILES, JOBS, Serving, error_of, serving

pytestmark = pytest.mark.anyio


@pytest.fixture
async def locked(tmp_path: Path, clean_environment: None) -> AsyncIterator[Serving]:
    config = ServeConfig.model_validate({"device": "cpu", "api_key": ["k"]})
    async with serving(tmp_path, config) as found:
        yield found


async def test_every_route_needs_a_key(locked: Serving) -> None:
    paths = locked.app.openapi()["paths"]
    assert len(paths) == 11
    async with client_of(locked.app) as client:
        for path, methods in paths.items():
            for method, operation in methods.items():
                answer = await client.request(method, path.replace("{", "").replace("}", ""))
                assert error_of(answer)[:2] == (401, "unauthorized"), path
                assert "401" in operation["responses"], path
        answer = await client.get(FILES, headers={"authorization": "Bearer k"})
        assert answer.status_code == 200


async def test_server_without_jobs_says_so(served: Serving) -> None:
    served.app.state.steerward = replace(served.app.state.steerward, jobs=None)
    async with client_of(served.app) as client:
        for path in (JOBS, FILES):
            answer = await client.get(path)
            assert error_of(answer)[:2] == (503, "not_ready")
            assert "--no-jobs" in answer.json()["error"]["message"]


async def test_document_tells_of_forms_files_and_streams(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    form = paths[FILES]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["required"] == ["purpose", "file"]
    content = paths[f"{FILES}/{{file_id}}/content"]["get"]["responses"]["200"]["content"]
    assert set(content) == {"application/jsonl"}
    events = paths[f"{JOBS}/{{job_id}}/events"]["get"]
    assert set(events["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    assert {found["name"] for found in events["parameters"]} == {
        "job_id", "after", "limit", "stream", "last-event-id",
    }  # fmt: skip
    names = [found["name"] for found in paths[JOBS]["get"]["parameters"]]
    assert sorted(names) == ["after", "limit", "metadata"]
