"""Jobs over HTTP: created, found, paused, resumed and cancelled, and why some are not."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.server.jobs.serving import (
    CONVERSATIONS,
    JOBS,
    POLICY,
    Serving,
    create,
    error_of,
    job_body,
    run_job,
    upload,
)

pytestmark = pytest.mark.anyio


async def test_new_job_waits_with_all_settings_told(
    client: httpx.AsyncClient, served: Serving, prompts: str
) -> None:
    job = await create(client, prompts, metadata={"team": "red"}, suffix="mine")
    assert (job["object"], job["status"], job["model"]) == ("fine_tuning.job", "queued", POLICY)
    assert job["training_file"] == prompts
    assert job["metadata"] == {"team": "red"}
    assert job["fine_tuned_model"] is None
    assert job["method"]["rsf"]["iterations"] == 2
    assert job["method"]["rsf"]["candidates_per_prompt"] == 8
    assert (await client.get(f"{JOBS}/{job['id']}")).json() == job
    assert served.changes == ["new"]


async def test_settings_that_are_told_can_be_sent_again(
    client: httpx.AsyncClient, prompts: str
) -> None:
    """They have more keys than a request was once allowed."""
    job = await create(client, prompts)
    again = await client.post(JOBS, json=job_body(prompts) | {"method": job["method"]})
    assert again.status_code == 200, again.text
    assert again.json()["method"] == job["method"]


@pytest.mark.parametrize(
    ("more", "seed"),
    [({}, 0), ({"seed": 3}, 3), ({"rsf": {"seed": 5}}, 5), ({"seed": 3, "rsf": {"seed": 0}}, 0)],
    ids=["none", "job's", "settings'", "both"],
)
async def test_seed_is_the_one_of_the_settings_else_of_the_job(
    client: httpx.AsyncClient, prompts: str, more: dict[str, Any], seed: int
) -> None:
    assert (await create(client, prompts, **more))["seed"] == seed


async def test_file_that_is_not_there_is_named(client: httpx.AsyncClient, prompts: str) -> None:
    unknown = "file-" + "0" * 24
    for body, param in (
        (job_body(unknown), "training_file"),
        (job_body("no id\0 at all"), "training_file"),
        (job_body(prompts, validation_file=unknown), "validation_file"),
        (job_body(prompts, rsf={"sft_file": unknown, "sft_share": 0.1}), "method.rsf.sft_file"),
    ):
        assert error_of(await client.post(JOBS, json=body)) == (404, "not_found", param)


async def test_file_that_holds_something_else_is_refused(
    client: httpx.AsyncClient, served: Serving, prompts: str
) -> None:
    talks = await upload(client, CONVERSATIONS, name="talks.jsonl")
    for body, param in (
        (job_body(talks), "training_file"),
        (job_body(prompts, validation_file=talks), "validation_file"),
        (job_body(prompts, rsf={"sft_file": prompts, "sft_share": 0.1}), "method.rsf.sft_file"),
    ):
        assert error_of(await client.post(JOBS, json=body)) == (422, "invalid_request", param)
    answer = await client.post(JOBS, json=job_body(talks))
    assert answer.json()["error"]["message"] == (
        f"file {talks} (talks.jsonl) holds conversations, rows that end with the assistant's turn; "
        "training_file needs prompts, rows that end with a user turn"
    )
    assert served.changes == []


async def test_servers_own_check_refuses(
    client: httpx.AsyncClient, served: Serving, prompts: str
) -> None:
    body = job_body(prompts) | {"model": "other"}
    assert error_of(await client.post(JOBS, json=body)) == (404, "not_found", "model")
    assert served.changes == []
    assert (await client.get(JOBS)).json()["data"] == []


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"method": {"type": "dpo"}}, "method.type"),
        ({"method": {"type": "rsf", "rsf": {"iteration": 1}}}, "method.rsf.iteration"),
        ({"method": {"type": "rsf", "rsf": {"iterations": 0}}}, "method.rsf.iterations"),
        ({"suffix": "a/b"}, "suffix"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"unknown": 1}, "unknown"),
    ],
)
async def test_request_that_breaks_a_rule_is_refused_with_its_place(
    client: httpx.AsyncClient, change: dict[str, Any], param: str
) -> None:
    answer = await client.post(JOBS, json=job_body("file-x") | change)
    assert error_of(answer) == (422, "invalid_request", param)


async def test_jobs_are_listed_in_pages_newest_first(
    client: httpx.AsyncClient, prompts: str
) -> None:
    ids = [(await create(client, prompts))["id"] for _ in range(3)]
    first = (await client.get(JOBS, params={"limit": 2})).json()
    assert ([job["id"] for job in first["data"]], first["has_more"]) == (ids[:0:-1], True)
    rest = (await client.get(JOBS, params={"limit": 2, "after": ids[1]})).json()
    assert ([job["id"] for job in rest["data"]], rest["has_more"]) == (ids[:1], False)


async def test_jobs_are_found_by_metadata(client: httpx.AsyncClient, prompts: str) -> None:
    red = await create(client, prompts, metadata={"team": "red", "run [1]": "a=b"})
    await create(client, prompts, metadata={"team": "blue"})
    await create(client, prompts)
    for query in (
        {"metadata[team]": "red"},
        {"metadata[run [1]]": "a=b"},
        {"metadata[team]": "red", "metadata[run [1]]": "a=b", "limit": "5"},
    ):
        found = (await client.get(JOBS, params=query)).json()["data"]
        assert [job["id"] for job in found] == [red["id"]]
    nobody = await client.get(JOBS, params={"metadata[team]": "blue", "metadata[run [1]]": "a=b"})
    assert nobody.json()["data"] == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("metadata=null", "metadata"),
        ("metadata[]=x", "metadata[]"),
        ("metadata[a]=1&metadata[a]=2", "metadata[a]"),
        ("metadata[a]=" + "v" * 513, "metadata[a]"),
        ("&".join(f"metadata[{number}]=v" for number in range(17)), "metadata"),
        ("limit=0", "query.limit"),
        ("after=a.b", "query.after"),
        ("labels[a]=1", "labels[a]"),
    ],
)
async def test_query_that_is_wrong_is_refused_with_its_key(
    client: httpx.AsyncClient, query: str, param: str
) -> None:
    assert error_of(await client.get(f"{JOBS}?{query}")) == (422, "invalid_request", param)


async def test_job_that_waits_is_paused_resumed_and_cancelled(
    client: httpx.AsyncClient, served: Serving, prompts: str
) -> None:
    job = await create(client, prompts)
    for action, status in (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled")):
        answer = await client.post(f"{JOBS}/{job['id']}/{action}")
        assert (answer.status_code, answer.json()["status"]) == (200, status)
    assert answer.json()["finished_at"] is not None
    assert len(served.changes) == 4
    refused = await client.post(f"{JOBS}/{job['id']}/resume")
    assert error_of(refused)[:2] == (422, "invalid_request")
    assert "cancelled" in refused.json()["error"]["message"]


async def test_whoever_runs_a_job_is_told_of_a_wish(
    client: httpx.AsyncClient, served: Serving, prompts: str
) -> None:
    job = await create(client, prompts)
    _, owner = run_job(served.store)
    answer = await client.post(f"{JOBS}/{job['id']}/cancel")
    assert answer.json()["status"] == "running"
    assert served.store.heartbeat(job["id"], owner, lease_s=60.0) == "cancel"
    assert served.changes == ["new"] * 2


async def test_checkpoints_are_listed_last_step_first(
    client: httpx.AsyncClient, served: Serving, prompts: str
) -> None:
    job = await create(client, prompts)
    empty = (await client.get(f"{JOBS}/{job['id']}/checkpoints")).json()
    assert (empty["data"], empty["first_id"], empty["last_id"]) == ([], None, None)
    for step in (1, 2):
        served.store.add_checkpoint(
            job["id"],
            folder=f"/weights/{step}",
            step_number=step,
            metrics={"direction_score": 0.5, "kl": None},
            weight_version=f"v{step}",
        )
    first = (await client.get(f"{JOBS}/{job['id']}/checkpoints", params={"limit": 1})).json()
    assert first["has_more"]
    assert first["data"][0]["step_number"] == 2
    assert first["data"][0]["fine_tuned_model_checkpoint"] == "/weights/2"
    query = {"after": first["last_id"]}
    second = (await client.get(f"{JOBS}/{job['id']}/checkpoints", params=query)).json()
    assert [found["step_number"] for found in second["data"]] == [1]


async def test_unknown_job_is_404_with_its_id(client: httpx.AsyncClient) -> None:
    job_id = "ftjob-" + "0" * 24
    for method, path in (
        ("GET", ""),
        ("GET", "/events"),
        ("GET", "/events?stream=true"),
        ("GET", "/checkpoints"),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("POST", "/cancel"),
    ):
        answer = await client.request(method, f"{JOBS}/{job_id}{path}")
        assert error_of(answer)[:2] == (404, "not_found"), path
        assert job_id in answer.json()["error"]["message"]
    answer = await client.get(f"{JOBS}/a.b")
    assert error_of(answer) == (422, "invalid_request", "path.job_id")
