"""Requests that are sent again under their key are not scored again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import Response

from steerward.protocol.arrays import MEDIA_TYPE
from steerward.protocol.errors import InvalidRequest, Overloaded
from steerward.server.idempotency import AnswerStore
from tests.server.conftest import BODY, StartApp, client_of, listening, until

pytestmark = pytest.mark.anyio

KEY = {"idempotency-key": "batch-1"}


def num_scored(app: FastAPI) -> float:
    registry = app.state.steerward.metrics.registry
    return registry.get_sample_value("steerward_candidates_total", {"model": "armorm"}) or 0.0


def outcomes(app: FastAPI, outcome: str) -> float:
    registry = app.state.steerward.metrics.registry
    name = "steerward_idempotent_answers_total"
    return registry.get_sample_value(name, {"outcome": outcome}) or 0.0


async def test_same_request_again_has_the_first_answer(start_app: StartApp) -> None:
    app = await start_app()
    async with client_of(app) as client:
        first = await client.post("/v1/score", json=BODY, headers=KEY)
        scored = num_scored(app)
        again = await client.post("/v1/score", json=BODY, headers=KEY)
        assert again.content == first.content
        assert num_scored(app) == scored
        assert again.headers["idempotent-replayed"] == "true"
        assert "idempotent-replayed" not in first.headers
        assert again.headers["x-weight-version"] == first.headers["x-weight-version"]
        assert again.headers["x-request-id"] != first.headers["x-request-id"]
        other = await client.post("/v1/score", json=BODY, headers={"idempotency-key": "batch-2"})
        assert other.json()["id"] != first.json()["id"]
    assert (outcomes(app, "first"), outcomes(app, "repeated")) == (2.0, 1.0)


async def test_request_under_way_is_joined(start_app: StartApp) -> None:
    app = await start_app()
    async with client_of(app) as client:
        await client.post("/pause")
        asking = [
            asyncio.create_task(client.post("/v1/score", json=BODY, headers=KEY)) for _ in range(3)
        ]
        await until(lambda: app.state.steerward.pause.num_held)
        await client.post("/resume")
        answers = [(await one).json() for one in asking]
    assert answers[0] == answers[1] == answers[2]
    assert num_scored(app) == 2.0
    assert (outcomes(app, "first"), outcomes(app, "joined")) == (1.0, 2.0)


async def test_client_that_lost_its_connection_gets_the_answer_when_it_asks_again(
    start_app: StartApp,
) -> None:
    app = await start_app()
    async with listening(app) as url, httpx.AsyncClient(base_url=url) as client:
        await client.post("/pause")
        lost = asyncio.create_task(client.post("/v1/score", json=BODY, headers=KEY))
        await until(lambda: app.state.steerward.pause.num_held)
        lost.cancel()
        await client.post("/resume")
        await until(lambda: app.state.steerward.answers.num_bytes)
        answer = await client.post("/v1/score", json=BODY, headers=KEY)
    assert answer.status_code == 200
    assert num_scored(app) == 2.0


async def test_key_of_another_body_is_refused(client: httpx.AsyncClient) -> None:
    await client.post("/v1/score", json=BODY, headers=KEY)
    for changes, headers in (({"explain": True}, {}), ({}, {"accept": MEDIA_TYPE})):
        answer = await client.post(
            "/v1/score", json={**BODY, **changes}, headers={**KEY, **headers}
        )
        assert answer.status_code == 422
        error = answer.json()["error"]
        assert error["param"] == "idempotency-key"
        assert "new key" in error["message"]


async def test_arrays_are_kept_too(client: httpx.AsyncClient) -> None:
    headers = {**KEY, "accept": MEDIA_TYPE}
    first, again = [await client.post("/v1/score", json=BODY, headers=headers) for _ in range(2)]
    assert again.content == first.content
    assert again.headers["content-type"] == MEDIA_TYPE


async def test_errors_are_not_kept(client: httpx.AsyncClient) -> None:
    await client.post("/pause")
    body = {**BODY, "timeout_s": 0.02}
    assert (await client.post("/v1/score", json=body, headers=KEY)).status_code == 504
    await client.post("/resume")
    body = {**BODY, "timeout_s": 30}
    assert (await client.post("/v1/score", json=body, headers=KEY)).status_code == 200


@pytest.mark.parametrize("key", ["", "a b", "x" * 300, "ü"])
async def test_odd_keys_are_refused(client: httpx.AsyncClient, key: str) -> None:
    headers = {b"idempotency-key": key.encode()}
    answer = await client.post("/v1/score", json=BODY, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "idempotency-key"


async def test_keys_of_another_credential_are_others(start_app: StartApp) -> None:
    async with client_of(await start_app(api_key=["one", "two"])) as client:
        ids = {
            (
                await client.post(
                    "/v1/score", json=BODY, headers={**KEY, "authorization": f"Bearer {key}"}
                )
            ).json()["id"]
            for key in ("one", "two")
        }
    assert len(ids) == 2


def answering(text: bytes) -> Callable[[], Coroutine[Any, Any, Response]]:
    async def answer() -> Response:
        return Response(text)

    return answer


async def test_least_recently_used_answers_go_first() -> None:
    store = AnswerStore(max_bytes=7000)
    for key in ("a", "b"):
        await store.once(key, b"", answering(b"x" * 2000))
    assert (await store.once("a", b"", answering(b"other")))[1] == "repeated"
    await store.once("c", b"", answering(b"x" * 2000))
    assert store.num_bytes <= 7000
    assert (await store.once("a", b"", answering(b"other")))[1] == "repeated"
    assert (await store.once("b", b"", answering(b"other")))[1] == "first"


async def test_answer_that_is_too_large_is_not_kept() -> None:
    store = AnswerStore(max_bytes=2000)
    await store.once("a", b"", answering(b"x" * 3000))
    assert store.num_bytes == 0
    assert (await store.once("a", b"", answering(b"small")))[1] == "first"


async def test_keys_are_forgotten_after_their_time() -> None:
    now = 0.0
    store = AnswerStore(lifetime_s=600.0, clock=lambda: now)
    await store.once("a", b"1", answering(b"first"))
    now = 599.0
    with pytest.raises(InvalidRequest):
        await store.once("a", b"2", answering(b"second"))
    now = 600.0
    response, outcome = await store.once("a", b"2", answering(b"second"))
    assert (response.body, outcome) == (b"second", "first")


async def test_all_who_wait_get_the_error_and_the_next_try_is_computed() -> None:
    store = AnswerStore()
    may_fail = asyncio.Event()

    async def fail() -> Response:
        await may_fail.wait()
        raise Overloaded("the queue is full")

    waiting = [asyncio.create_task(store.once("a", b"", fail)) for _ in range(2)]
    await asyncio.sleep(0)
    may_fail.set()
    for one in waiting:
        with pytest.raises(Overloaded):
            await one
    assert (await store.once("a", b"", answering(b"done")))[1] == "first"
