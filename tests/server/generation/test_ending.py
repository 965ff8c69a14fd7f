"""What ends completions: deadlines, failures, clients that go or do not read."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from fastapi import FastAPI

from tests.server.conftest import StartApp, client_of, listening, until
from tests.server.generation.asking import (
    ASK,
    CHAT,
    events,
    held,
    policy_of,
    refused,
)

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("stream", [False, True])
async def test_deadline_before_there_is_anything_is_504(
    app: FastAPI, client: httpx.AsyncClient, stream: bool
) -> None:
    with held(app, after=0):
        status, error = await refused(client, timeout_s=0.05, stream=stream)
    assert (status, error["code"]) == (504, "deadline_exceeded")
    await until(lambda: policy_of(app).card().running == 0)


async def test_servers_own_limit_is_the_deadline_if_it_is_shorter(
    start_app: StartApp, policy_folder: str
) -> None:
    app = await start_app(policy=[policy_folder], generation_timeout_s=0.05)
    async with client_of(app) as client:
        with held(app, after=0):
            status, _ = await refused(client, timeout_s=100)
    assert status == 504


async def test_failure_in_mid_stream_is_an_event(app: FastAPI, client: httpx.AsyncClient) -> None:
    with held(app, after=2):
        answer = await client.post(CHAT, json={**ASK, "stream": True, "timeout_s": 0.5})
    assert answer.status_code == 200
    *chunks, last = events(answer.text)
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert last["error"]["code"] == "deadline_exceeded"
    metrics = (await client.get("/metrics")).text
    assert 'steerward_completions_total{finish_reason="error",model="tiny"} 1.0' in metrics
    assert 'steerward_refusals_total{code="deadline_exceeded"} 1.0' in metrics


async def test_server_that_stops_ends_streams_with_an_event(app: FastAPI) -> None:
    async with listening(app) as url, httpx.AsyncClient(base_url=url, timeout=30.0) as client:
        with held(app, after=2) as is_held:
            asking = asyncio.create_task(client.post(CHAT, json={**ASK, "stream": True}))
            await until(is_held.is_set)
            closing = asyncio.create_task(app.state.steerward.close())
            await until(lambda: not policy_of(app).is_ready)
        answer = await asking
        await closing
    assert events(answer.text)[-1]["error"]["code"] == "not_ready"


@pytest.mark.parametrize("stream", [False, True])
async def test_places_are_free_at_once_when_the_client_goes(app: FastAPI, stream: bool) -> None:
    long = {**ASK, "n": 8, "max_completion_tokens": 200, "stream": stream}
    async with listening(app) as url, httpx.AsyncClient(base_url=url, timeout=30.0) as client:
        with held(app, after=3) as is_held:
            asking = asyncio.create_task(client.post(CHAT, json=long))
            await until(is_held.is_set)
            asking.cancel()
        await until(lambda: policy_of(app).card().running == 0)
        metrics = (await client.get("/metrics")).text
        other = await client.post(CHAT, json=ASK)
    assert 'steerward_completions_total{finish_reason="closed",model="tiny"} 8.0' in metrics
    assert other.status_code == 200


async def test_slow_reader_holds_up_nobody_and_is_cut_off_at_the_deadline(app: FastAPI) -> None:
    body = json.dumps(
        {**ASK, "n": 64, "max_completion_tokens": 200, "stream": True, "logprobs": True,
         "top_logprobs": 20, "reward": False, "timeout_s": 3.0}
    ).encode()  # fmt: skip
    head = f"POST {CHAT} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\n"
    async with listening(app) as url, httpx.AsyncClient(base_url=url, timeout=30.0) as client:
        port = int(url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        # It reads no more; its events fill all buffers on the way.
        for _ in range(3):
            assert (await client.post(CHAT, json=ASK)).status_code == 200
        await until(lambda: policy_of(app).card().running == 0)
        text = (await client.get("/metrics")).text
        while 'status="200"' not in text or f'route="{CHAT}",status="200"}} 4.0' not in text:
            await asyncio.sleep(0.05)
            text = (await client.get("/metrics")).text
        writer.close()
    assert 'steerward_running_completions{model="tiny"} 0.0' in text
