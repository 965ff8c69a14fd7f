"""Models that jobs made are deleted by name, and no other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import httpx
import pytest

from steerward.protocol.fine_tuning import JobRequest
from tests.server.conftest import StartApp
from tests.server.jobs.serving import JOBS, Serving, create, error_of, job_body

pytestmark = pytest.mark.anyio

NAME = "ft:pocket-policy:mine/2:abc"


def keep_fine_tuned(served: Serving, job: dict[str, Any]) -> None:
    served.store.save_fine_tuned(
        name=NAME,
        job_id=job["id"],
        base="pocket-policy",
        kind="full",
        folder="/weights",
        weight_version="v1",
    )


async def test_fine_tuned_model_is_deleted_by_any_name(
    client: httpx.AsyncClient, served: Serving, prompts: str
) -> None:
    keep_fine_tuned(served, await create(client, prompts))
    answer = await client.delete(f"/v1/models/{NAME}")
    assert answer.json() == {"id": NAME, "object": "model", "deleted": True}
    assert [(model.name, model.folder) for model in served.deleted] == [(NAME, "/weights")]
    assert served.store.fine_tuned() == []
    again = await client.delete(f"/v1/models/{NAME}")
    assert error_of(again)[:2] == (404, "not_found")
    assert NAME in again.json()["error"]["message"]
    assert len(served.deleted) == 1


async def test_model_that_a_job_began_with_is_kept_until_its_end(
    client: httpx.AsyncClient, served: Serving, prompts: str
) -> None:
    keep_fine_tuned(served, await create(client, prompts))
    request = JobRequest.model_validate(job_body(prompts) | {"model": NAME})
    needing = served.store.create(request, seed=0).id
    answer = await client.delete(f"/v1/models/{NAME}")
    assert error_of(answer) == (422, "invalid_request", "model")
    assert f"needed by {needing}, which is queued" in answer.json()["error"]["message"]
    assert served.deleted == []
    await client.post(f"{JOBS}/{needing}/cancel")
    assert (await client.delete(f"/v1/models/{NAME}")).json()["deleted"]


async def test_other_models_are_not_deleted(
    client: httpx.AsyncClient, served: Serving, start_app: StartApp
) -> None:
    engines = (await start_app()).state.steerward.engines
    served.app.state.steerward = replace(served.app.state.steerward, engines=engines)
    answer = await client.delete("/v1/models/armorm")
    assert error_of(answer) == (422, "invalid_request", "model")
    assert served.deleted == []
