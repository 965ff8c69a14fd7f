"""Several replicas behind one name, here on one CPU, over the server's real app."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import torch
from fastapi import FastAPI

from steerward.config import EngineConfig
from steerward.engine.engine import Engine
from steerward.engine.group import EngineGroup
from steerward.engine.loading import load_engine
from steerward.engine.routing import prompt_key
from steerward.metrics import Metrics
from steerward.models.checkpoint import load_reward_model
from steerward.protocol.errors import CheckpointRefused, NotReady, Overloaded
from steerward.protocol.items import ScoreItem
from steerward.protocol.scoring import ModelCard
from tests.engine.conftest import request
from tests.golden_cases import GOLDEN
from tests.server.conftest import client_of, start_app  # noqa: F401  (a fixture)

pytestmark = pytest.mark.anyio

TWO = {"device": "auto", "devices": ["cpu", "cpu"]}


@pytest.fixture
async def app(start_app: Any) -> FastAPI:  # noqa: F811
    return await start_app(max_batch_tokens=256, **TWO)


@pytest.fixture
def group(app: FastAPI) -> EngineGroup:
    engine = app.state.steerward.engines["armorm"].current
    assert isinstance(engine, EngineGroup)
    return engine


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as http:
        yield http


def body(prompt: str, *candidates: str) -> dict[str, Any]:
    return {"items": [{"prompt": prompt, "candidates": list(candidates or ("Yes.",))}]}


def key_of(prompt: str) -> int:
    return prompt_key(ScoreItem(prompt=prompt, candidates=["Yes."]))


def answered(app: FastAPI) -> list[float]:
    """How many requests each replica has answered."""
    read = app.state.steerward.metrics.registry.get_sample_value
    name = "steerward_replica_answers_total"
    return [
        read(name, {"model": "armorm", "device": device}) or 0.0 for device in ("cpu", "cpu #2")
    ]


def kill(engine: Engine) -> None:
    """Take a layer out of the real backbone: every forward pass raises from now on."""
    del engine.model.backbone.model.layers[0].mlp.up_proj


def hold(engine: Engine) -> threading.Event:
    """Make the device of an engine wait before its batches until the event is set."""
    release = threading.Event()
    engine.model.backbone.register_forward_pre_hook(lambda *_: release.wait(30.0) and None)
    return release


async def test_replicas_give_the_scores_of_one_engine(
    app: FastAPI,
    client: httpx.AsyncClient,
    start_app: Any,  # noqa: F811
) -> None:
    async with client_of(await start_app()) as single:
        for number in range(4):
            sent = body(f"Prompt {number}.", "One answer.", "Another.")
            one, other = [await c.post("/v1/score", json=sent) for c in (single, client)]
            assert other.json()["items"] == one.json()["items"]
            assert other.headers["x-weight-version"] == one.headers["x-weight-version"]
    assert answered(app) == [2, 2]


async def test_requests_of_one_prompt_go_to_the_same_replica(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    for number in range(6):
        await client.post("/v1/score", json=body("The same prompt.", f"Answer {number}."))
    assert sorted(answered(app)) == [0, 6]


async def test_known_replica_that_is_far_behind_is_passed_by(
    app: FastAPI, client: httpx.AsyncClient, group: EngineGroup
) -> None:
    await client.post("/v1/score", json=body("Known."))
    busy = group.engines[answered(app).index(1)]
    release = hold(busy)
    # More than a forward pass of 256 tokens: a part runs, a part waits.
    long = asyncio.create_task(client.post("/v1/score", json=body("Known.", "word " * 500)))
    while busy.load_tokens <= 256:
        await asyncio.sleep(0.001)
    answer = await client.post("/v1/score", json=body("Known.", "Somewhere else."))
    assert answer.status_code == 200
    assert sorted(answered(app)) == [1, 1]
    release.set()
    assert (await long).status_code == 200


async def test_load_is_balanced_by_tokens(
    app: FastAPI, client: httpx.AsyncClient, group: EngineGroup
) -> None:
    releases = [hold(engine) for engine in group.engines]
    tasks = [
        asyncio.create_task(client.post("/v1/score", json=body(f"Prompt {i}.", "word " * 60)))
        for i in range(20)
    ]
    async with asyncio.timeout(20.0):
        while sum(engine._worker.backlog().num_tokens for engine in group.engines) < 20 * 60:
            await asyncio.sleep(0.005)
    one, other = (engine.load_tokens for engine in group.engines)
    assert abs(one - other) <= 0.2 * (one + other)
    for release in releases:
        release.set()
    assert {(await task).status_code for task in tasks} == {200}
    assert min(answered(app)) >= 8


async def test_one_dead_replica_leaves_the_model_ready_and_says_so(
    app: FastAPI, client: httpx.AsyncClient, group: EngineGroup
) -> None:
    kill(group.engines[1])
    statuses = [
        (await client.post("/v1/score", json=body(f"Prompt {i}."))).status_code for i in range(6)
    ]
    # The one whose batch failed is told so; nobody else notices.
    assert sorted(statuses) == [200] * 5 + [500]
    health = await client.get("/health")
    assert health.status_code == 200
    assert "armorm: cpu #2: the device worker has stopped" in health.json()["degraded"]
    card = ModelCard.model_validate((await client.get("/v1/models/armorm")).json())
    assert [replica.is_ready for replica in card.replicas] == [True, False]
    assert "has stopped" in card.replicas[1].reason
    assert card.device == "cpu, cpu"
    read = app.state.steerward.metrics.registry.get_sample_value
    assert read("steerward_ready", {"model": "armorm"}) == 1
    assert read("steerward_replica_ready", {"model": "armorm", "device": "cpu #2"}) == 0
    kill(group.engines[0])
    await client.post("/v1/score", json=body("The last."))
    while group.is_ready:
        await asyncio.sleep(0.001)
    assert (await client.get("/health")).status_code == 503
    refused = await client.post("/v1/score", json=body("One more."))
    assert refused.status_code == 503
    assert "cpu #2: the device worker" in refused.json()["error"]["message"]
    assert read("steerward_ready", {"model": "armorm"}) == 0


async def test_what_waits_at_a_dying_replica_is_moved(
    app: FastAPI, client: httpx.AsyncClient, group: EngineGroup
) -> None:
    dying, other = group.engines
    release = hold(dying)
    other.begin_drain()  # So that all go to the first.
    tasks = [
        asyncio.create_task(client.post("/v1/score", json=body(f"Prompt {i}.", "word " * 100)))
        for i in range(8)
    ]
    while dying._worker.backlog().num_tokens < 800:
        await asyncio.sleep(0.001)
    other._set_state("ready", "")
    kill(dying)
    release.set()
    statuses = [(await task).status_code for task in tasks]
    assert set(statuses) == {200, 500}
    # Two passes of two requests each had been put together, and one of them ran.
    assert statuses.count(500) <= 2
    assert answered(app)[1] == statuses.count(200)


async def test_full_replica_sends_on_to_one_that_has_room(clean_environment: None) -> None:
    config = EngineConfig(devices=["cpu", "cpu"], max_queued_tokens=200, max_batch_tokens=64)
    source = str(GOLDEN / "armorm")
    group = load_engine(source, name="armorm", config=config, metrics=Metrics())
    assert isinstance(group, EngineGroup)
    group.start()
    await group.wait_until_ready()
    releases = [hold(engine) for engine in group.engines]

    def score(number: int) -> asyncio.Task[Any]:
        items = [{"prompt": f"Prompt {number}.", "candidates": ["word " * 90]}]
        return asyncio.create_task(group.score(request(items=items)))

    tasks = [score(number) for number in range(30)]
    await asyncio.sleep(0.5)
    for release in releases:
        release.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [result for result in results if isinstance(result, Overloaded)]
    assert len(refused) + sum(not isinstance(r, BaseException) for r in results) == 30
    # Refused only when both are full: each had its share.
    assert refused
    assert len(results) - len(refused) >= 4
    await asyncio.to_thread(group.close)
    with pytest.raises(NotReady):
        await group.score(request())


async def test_refused_prompt_is_not_taken_for_one_that_was_seen(clean_environment: None) -> None:
    """It went to the replica that had refused it, also when another had less to do."""
    config = EngineConfig(devices=["cpu", "cpu"], max_queued_tokens=1, max_batch_tokens=10_000)
    group = load_engine(str(GOLDEN / "armorm"), name="armorm", config=config, metrics=Metrics())
    assert isinstance(group, EngineGroup)
    group.start()
    await group.wait_until_ready()
    first, second = group.engines
    release = hold(first)
    second.begin_drain()  # So that all go to the first.
    router = group._router

    def score(prompt: str) -> asyncio.Task[Any]:
        items = [{"prompt": prompt, "candidates": ["Yes."]}]
        return asyncio.create_task(group.score(request(items=items)))

    async with asyncio.timeout(20.0):
        running = score("Prompt 0.")
        while not first._worker.backlog().running:
            await asyncio.sleep(0.001)
        waiting = score("Prompt 1.")
        while not first._worker.queued_tokens:
            await asyncio.sleep(0.001)
        with pytest.raises(Overloaded):
            await score("Refused.")
        release.set()
        await asyncio.gather(running, waiting)
    assert router.order([key_of("Prompt 0.")], {0: 1, 1: 0})[0] == 0
    assert router.order([key_of("Refused.")], {0: 1, 1: 0})[0] == 1
    await asyncio.to_thread(group.close)


async def test_group_starts_with_what_works(clean_environment: None) -> None:
    config = EngineConfig(devices=["cpu", "cpu"])
    source = str(GOLDEN / "armorm")
    for dead in ([0], [0, 1]):
        group = load_engine(source, name="armorm", config=config, metrics=Metrics())
        assert isinstance(group, EngineGroup)
        for i in dead:
            kill(group.engines[i])
        group.start()
        if len(dead) == 1:
            await group.wait_until_ready()
            assert (await group.score(request())).answer["items"]
        else:
            with pytest.raises(NotReady):
                await group.wait_until_ready()
        group.close()


def test_replicas_of_different_weights_are_refused() -> None:
    models = [load_reward_model(GOLDEN / name, device="cpu") for name in ("armorm", "urm")]
    engines = [
        Engine(model, name="m", config=EngineConfig(), metrics=Metrics()) for model in models
    ]
    with pytest.raises(CheckpointRefused, match="changed while it was loaded"):
        EngineGroup(engines)
    for engine in engines:
        engine.close()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there are GPUs")
def test_all_devices_without_a_gpu_are_refused(clean_environment: None) -> None:
    config = EngineConfig(devices=["all"])
    with pytest.raises(CheckpointRefused, match="torch sees none"):
        load_engine(str(GOLDEN / "armorm"), name="m", config=config, metrics=Metrics())
