"""Pause and resume, and the version of the weights."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tests.server.compat.asking import joined, post
from tests.server.compat.families import conversation
from tests.server.conftest import BODY, StartApp, client_of, listening, until

pytestmark = pytest.mark.anyio


def pause_of(app: FastAPI) -> Any:
    return app.state.steerward.pause


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": conversation("Hi"), "max_completion_tokens": 4, **more}


async def test_requests_are_held_until_resumed(start_app: StartApp, policy_folder: str) -> None:
    app = await start_app(policy=[policy_folder])
    async with client_of(app) as client:
        assert (await client.get("/is_paused")).json()["is_paused"] is False
        paused = (await client.post("/pause")).json()
        assert paused == {"status": "paused", "is_paused": True, "running": 0, "held": 0}
        held = [
            asyncio.create_task(asking)
            for asking in (
                client.post("/v1/score", json=BODY),
                post(client, "/get_reward", {"query": joined()}),
                post(client, "/v1/chat/completions", chat()),
                post(client, "/v1/chat/completions", chat(stream=True)),
                post(
                    client,
                    "/v1/chat/completions",
                    {"model": "armorm", "messages": conversation("Why?", "No.")},
                ),
            )
        ]
        await until(lambda: pause_of(app).num_held == len(held))
        assert (await client.get("/is_paused")).json()["held"] == len(held)
        for path in ("/health", "/v1/models", "/v1/weight_version", "/metrics"):
            assert (await client.get(path)).status_code == 200
        tokens = await client.post("/v1/tokenize", json=BODY)
        assert tokens.status_code == 200
        assert not any(task.done() for task in held)
        assert (await client.post("/resume")).json()["status"] == "resumed"
        for task in held:
            assert (await task).status_code == 200
    assert pause_of(app).num_running == 0


async def test_held_request_is_refused_when_its_time_is_up(start_app: StartApp) -> None:
    app = await start_app()
    async with client_of(app) as client:
        await client.post("/pause")
        answer = await client.post("/v1/score", json={**BODY, "timeout_s": 0.02})
        assert answer.status_code == 504
        assert "POST /resume" in answer.json()["error"]["message"]
        await client.post("/resume")
        assert (await client.post("/v1/score", json=BODY)).status_code == 200


async def test_pause_answers_when_what_runs_is_done(
    start_app: StartApp, policy_folder: str
) -> None:
    app = await start_app(policy=[policy_folder])
    async with listening(app) as url, httpx.AsyncClient(base_url=url) as client:
        body = chat(stream=True, max_completion_tokens=100)
        async with client.stream("POST", "/v1/chat/completions", json=body) as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            pausing = asyncio.create_task(client.post("/pause"))
            await until(lambda: pause_of(app).is_on)
            at_once = await client.post("/pause?wait_for_inflight_requests=false")
            assert at_once.json()["running"] <= 1
            rest = [line async for line in lines]
        assert "data: [DONE]" in rest
        assert (await pausing).json()["running"] == 0
        await client.post("/resume")


async def test_client_that_goes_away_is_held_no_longer(start_app: StartApp) -> None:
    app = await start_app()
    async with listening(app) as url, httpx.AsyncClient(base_url=url) as client:
        await client.post("/pause")
        asking = asyncio.create_task(client.post("/v1/score", json=BODY))
        await until(lambda: pause_of(app).num_held == 1)
        asking.cancel()
        await until(lambda: pause_of(app).num_held == 0)
        await client.post("/resume")


async def test_shutdown_refuses_what_is_held(start_app: StartApp) -> None:
    app = await start_app()
    async with client_of(app) as client:
        await client.post("/pause")
        held = asyncio.create_task(client.post("/v1/score", json=BODY))
        await until(lambda: pause_of(app).num_held == 1)
        app.state.steerward.begin_drain()
        assert (await held).status_code == 503


@pytest.mark.parametrize("query", ["mode=abort", "mode=keep", "colour=red"])
async def test_other_ways_to_pause_are_refused(client: httpx.AsyncClient, query: str) -> None:
    assert (await client.post(f"/pause?{query}")).status_code == 422
    assert (await client.get("/is_paused")).json()["is_paused"] is False


async def test_words_of_vllm_are_taken(client: httpx.AsyncClient) -> None:
    query = "mode=wait&wait_for_inflight_requests=true&clear_cache=false"
    assert (await client.post(f"/pause?{query}")).json()["is_paused"] is True
    assert (await client.post("/pause")).json()["is_paused"] is True
    assert (await client.post("/resume")).json()["is_paused"] is False
    assert (await client.post("/resume")).json()["is_paused"] is False


async def test_weight_version_is_that_of_the_answers(
    start_app: StartApp, policy_folder: str
) -> None:
    async with client_of(await start_app(policy=[policy_folder])) as client:
        scored = (await client.post("/v1/score", json=BODY)).json()
        found = await client.get("/v1/weight_version")
        assert found.json() == {
            "object": "weight_version",
            "model": "armorm",
            "kind": "reward",
            "weight_version": scored["weight_version"],
        }
        drawn = await post(client, "/v1/chat/completions", chat())
        of_policy = (await client.get("/v1/weight_version?model=tiny")).json()
        assert of_policy["kind"] == "policy"
        assert of_policy["weight_version"] == drawn.headers["x-weight-version"]
        missing = await client.get("/v1/weight_version?model=gpt")
        assert missing.status_code == 404
        assert "armorm, tiny" in missing.json()["error"]["message"]


async def test_reward_model_is_named_where_there_are_several(start_app: StartApp) -> None:
    async with client_of(await start_app("armorm", "seqcls-llama-1")) as client:
        answer = await client.get("/v1/weight_version")
        assert answer.status_code == 422
        assert answer.json()["error"]["param"] == "model"


async def test_control_is_behind_the_key(start_app: StartApp) -> None:
    async with client_of(await start_app(api_key=["secret"])) as client:
        for method, path in (
            ("POST", "/pause"),
            ("POST", "/resume"),
            ("GET", "/is_paused"),
            ("GET", "/v1/weight_version"),
        ):
            assert (await client.request(method, path)).status_code == 401
            headers = {"authorization": "Bearer secret"}
            assert (await client.request(method, path, headers=headers)).status_code == 200
