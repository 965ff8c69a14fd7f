"""Weights exchanged over HTTP while requests run."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from steerward.models.source import weight_version
from tests.checkpoints import copy_with_other_heads
from tests.golden_cases import GOLDEN
from tests.policies import ARMORM_RULE, save_policy
from tests.server.compat.asking import joined
from tests.server.conftest import BODY, StartApp, client_of, until
from tests.server.test_state import hold_device

pytestmark = pytest.mark.anyio

OLD = weight_version(GOLDEN / "armorm")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The golden ArmoRM with other heads, below a folder that the server may load from."""
    return copy_with_other_heads(tmp_path / "weights" / "other")


@pytest.fixture
async def app(start_app: StartApp, tmp_path: Path, policy_folder: str) -> FastAPI:
    return await start_app(
        weights_dir=[tmp_path / "weights", GOLDEN], policy=[policy_folder], deterministic=True
    )


async def load(client: httpx.AsyncClient, name: str, folder: Path, **body: Any) -> httpx.Response:
    return await client.post("/v1/models", json={"id": name, "path": str(folder), **body})


async def score(client: httpx.AsyncClient, number: int, **body: Any) -> httpx.Response:
    items = [{"prompt": f"Prompt {number}.", "candidates": ["One answer.", f"Answer {number}."]}]
    return await client.post("/v1/score", json={"items": items, "model": "armorm", **body})


async def scores(client: httpx.AsyncClient, count: int) -> list[Any]:
    answers = await asyncio.gather(
        *(score(client, number, explain=True) for number in range(count))
    )
    return [answer.json()["items"] for answer in answers]


def error_of(answer: httpx.Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


async def test_no_request_fails_and_each_is_scored_by_the_version_it_names(
    app: FastAPI, other: Path
) -> None:
    new = weight_version(other)
    async with client_of(app, timeout=60.0) as client:
        expected = {OLD: await scores(client, 50)}
        found: list[httpx.Response] = []
        is_over = asyncio.Event()

        async def ask(number: int) -> None:
            while not is_over.is_set():
                answer = await score(client, number, explain=True)
                assert answer.status_code == 200, answer.text
                found.append(answer)

        async def more(count: int) -> None:
            wanted = len(found) + count
            while len(found) < wanted:
                await asyncio.sleep(0.001)

        asking = [asyncio.create_task(ask(number)) for number in range(50)]
        for folder in (other, GOLDEN / "armorm", other):
            await more(50)
            answer = await load(client, "armorm", folder)
            while answer.status_code == 429:  # Requests of the weights of before still run.
                await asyncio.sleep(0.01)
                answer = await load(client, "armorm", folder)
            assert answer.status_code == 200, answer.text
            assert answer.json()["weight_version"] == weight_version(folder)
        await more(50)
        is_over.set()
        await asyncio.gather(*asking)
        expected[new] = await scores(client, 50)
    versions = [answer.headers["x-weight-version"] for answer in found]
    assert set(versions) == {OLD, new}
    for answer in found:
        body, version = answer.json(), answer.headers["x-weight-version"]
        assert body["weight_version"] == version
        number = [item[0]["candidates"] for item in expected[version]].index(
            body["items"][0]["candidates"]
        )
        assert body["items"] == expected[version][number]
    assert expected[OLD] != expected[new]


async def test_answer_is_the_card_and_all_routes_speak_of_the_new_weights(
    app: FastAPI, other: Path
) -> None:
    async with client_of(app) as client:
        before = (await client.get("/v1/models/armorm")).json()
        answer = await load(client, "armorm", other)
        assert answer.status_code == 200
        new = weight_version(other)
        assert answer.json() == {**before, "weight_version": new}
        assert (await client.get("/v1/models/armorm")).json() == answer.json()
        told = (await client.get("/v1/weight_version", params={"model": "armorm"})).json()
        assert told["weight_version"] == new
        scored = await client.post("/v1/score", json=BODY)
        chat = {
            "model": Path(app.state.steerward.config.policy[0]).name,
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 4,
            "reward": True,
        }
        generated = await client.post("/v1/chat/completions", json=chat)
        foreign = await client.post("/get_reward", json={"query": joined()})
        tokens = await client.post("/v1/tokenize", json=BODY)
        assert (await client.get("/readyz")).status_code == 200
    for one in (scored, foreign, tokens):
        assert one.headers["x-weight-version"] == new, one.text
    assert generated.json()["steering"]["reward_weight_version"] == new


async def test_request_in_parts_is_scored_by_one_version(
    start_app: StartApp, tmp_path: Path, other: Path
) -> None:
    """Its parts are scored one after the other, and weights may take over between two."""
    app = await start_app(weights_dir=[tmp_path], max_items=1)
    release = threading.Event()
    is_held = hold_device(app.state.steerward.engines["armorm"].current, release)
    async with client_of(app, timeout=60.0) as client:
        body = {"query": joined()}
        asking = asyncio.create_task(client.post("/get_reward", json=body))
        try:
            await until(is_held.is_set)
            assert (await load(client, "armorm", other)).status_code == 200
            assert not asking.done()
        finally:
            release.set()
        answer, after = await asking, await client.post("/get_reward", json=body)
    assert len(joined()) > 1
    assert [one.status_code for one in (answer, after)] == [200, 200]
    versions = [one.headers["x-weight-version"] for one in (answer, after)]
    assert versions == [OLD, weight_version(other)]


async def test_what_cannot_be_loaded_is_refused_and_the_old_weights_go_on(
    app: FastAPI, other: Path, tmp_path: Path
) -> None:
    outside = Path(shutil.copytree(other, tmp_path / "outside"))
    (other / "model.safetensors").unlink()
    async with client_of(app) as client:
        for folder, wanted in (
            (other, (500, "checkpoint_refused", None)),
            (GOLDEN / "urm", (500, "checkpoint_refused", None)),
            (outside, (422, "invalid_request", "path")),
            (tmp_path / "weights" / ".." / "outside", (422, "invalid_request", "path")),
            ("a\0b", (422, "invalid_request", "path")),
            (tmp_path / "weights" / "nowhere", (404, "not_found", "path")),
        ):
            assert error_of(await load(client, "armorm", folder)) == wanted
        answer = await load(client, "armorm", GOLDEN / "armorm", parent="tiny")
        assert error_of(answer) == (422, "invalid_request", "parent")
        assert (await score(client, 0)).headers["x-weight-version"] == OLD


async def test_second_exchange_meanwhile_is_told_to_come_again(app: FastAPI, other: Path) -> None:
    async with client_of(app, timeout=60.0) as client:
        answers = await asyncio.gather(*(load(client, "armorm", other) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 429, 429]
    for answer in answers:
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) >= 1


async def test_key_is_needed_and_a_server_that_drains_takes_no_weights(
    start_app: StartApp, tmp_path: Path, other: Path
) -> None:
    app = await start_app(weights_dir=[tmp_path], api_key=["k"])
    async with client_of(app) as client:
        assert (await load(client, "armorm", other)).status_code == 401
        client.headers["authorization"] = "Bearer k"
        app.state.steerward.begin_drain()
        answer = await load(client, "armorm", other)
    assert error_of(answer)[:2] == (503, "not_ready")


async def test_weights_of_a_policy_are_exchanged_under_its_own_name(
    app: FastAPI, tmp_path: Path
) -> None:
    folder = save_policy(tmp_path / "weights" / "policy", seed=1, rule=ARMORM_RULE)
    adapter = tmp_path / "weights" / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    async with client_of(app) as client:
        before = (await client.get("/v1/models/tiny")).json()
        answer = await load(client, "tiny", folder)
        assert answer.status_code == 200, answer.text
        card = answer.json()
        assert card["kind"] == "policy"
        assert card["weight_version"] != before["weight_version"]
        beside = await load(client, "beside", folder, parent="tiny")
        assert beside.json()["parent"] == "tiny"
        assert beside.json()["weight_version"] == card["weight_version"]
        refused = [
            await load(client, "tiny", adapter),
            await load(client, "tiny", folder, parent="armorm"),
            await load(client, "else", folder, parent="armorm"),
        ]
        body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
        drawn = await client.post("/v1/chat/completions", json=body)
    assert [error_of(one) for one in refused] == [
        (422, "invalid_request", "id"),
        (422, "invalid_request", "parent"),
        (404, "not_found", "parent"),
    ]
    assert drawn.headers["x-weight-version"] == card["weight_version"]
