"""Both clients against the real app; faults come from a broken network between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import httpx
import pytest

from steerward.clients import AsyncClient, Client
from steerward.protocol.errors import (
    ConnectionFailed,
    NotFound,
    Overloaded,
    Unauthorized,
    UnknownObjective,
)
from steerward.protocol.items import Message, ScoreItem
from tests.golden_cases import GOLDEN_TOLERANCE, golden_cases
from tests.server.conftest import StartApp, start_app

__all__ = ["start_app"]  # a fixture, used by name below

pytestmark = pytest.mark.anyio


class FaultyNetwork(httpx.AsyncBaseTransport):
    """Carries requests to the app, but the first ones end as a fault says."""

    def __init__(self, app: Any, faults: list[Callable[[httpx.Request], httpx.Response]]) -> None:
        self._inner = httpx.ASGITransport(app)
        self._faults = faults
        self.attempts = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.attempts += 1
        if self._faults:
            return self._faults.pop(0)(request)
        return await self._inner.handle_async_request(request)


class BlockingNetwork(httpx.BaseTransport):
    """The same for the blocking client, which runs in a thread beside the app's loop."""

    def __init__(self, inner: FaultyNetwork) -> None:
        self._inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return anyio.from_thread.run(self._carry, request)

    async def _carry(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        content = await response.aread()
        return httpx.Response(response.status_code, headers=response.headers, content=content)


def drop(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadError("connection reset", request=request)


def refuse(status: int, **headers: str) -> Callable[[httpx.Request], httpx.Response]:
    return lambda _: httpx.Response(status, headers=headers, content=b"")


def half_a_body(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, content=b'{"object": "sco')


@pytest.fixture
async def client(start_app: StartApp) -> Any:
    transport = httpx.ASGITransport(await start_app())
    async with AsyncClient("http://test", transport=transport) as connected:
        yield connected


async def test_scores_are_typed(client: AsyncClient) -> None:
    answer = await client.score(
        [Message(role="user", content="Explain rainbows.")],
        ["Light splits.", "No."],
        direction={"objective_0": 2.0},
        explain=True,
    )
    (item,) = answer.items
    assert [candidate.index for candidate in item.candidates] == [0, 1]
    first = item.candidates[0]
    assert first.direction_score == pytest.approx(first.rewards["objective_0"])
    assert first.contributions is not None
    assert sum(first.contributions.values()) == pytest.approx(first.score, abs=GOLDEN_TOLERANCE)
    assert answer.direction == {"objective_0": 1.0}
    assert answer.usage.prefix_tokens_saved > 0


async def test_items_may_be_models_or_mappings(client: AsyncClient) -> None:
    case = golden_cases("armorm")[2]
    answer = await client.score_items(
        [
            {"messages": case["messages"]},
            ScoreItem(prompt="Hi", candidates=["Hello!"]),
        ]
    )
    assert answer.items[0].candidates[0].score == pytest.approx(case["score"], abs=GOLDEN_TOLERANCE)
    assert len(answer.items) == 2


async def test_models_are_listed(client: AsyncClient) -> None:
    (card,) = await client.models()
    assert (await client.model(card.id)).objectives == card.objectives
    with pytest.raises(NotFound, match="armorm"):
        await client.model("absent")


async def test_server_errors_come_back_as_their_own_class(client: AsyncClient) -> None:
    with pytest.raises(UnknownObjective, match="objective_18") as caught:
        await client.score("Hi", ["Hello!"], direction={"kindness": 1.0})
    assert caught.value.param == "direction.kindness"
    assert (caught.value.request_id or "").startswith("req-")


async def test_wrong_key_is_unauthorized(start_app: StartApp) -> None:
    transport = httpx.ASGITransport(await start_app(api_key=["right"]))
    async with AsyncClient("http://test", api_key="wrong", transport=transport) as client:
        with pytest.raises(Unauthorized):
            await client.models()
    transport = httpx.ASGITransport(await start_app(api_key=["right"]))
    async with AsyncClient("http://test", api_key="right", transport=transport) as client:
        assert len(await client.models()) == 1


async def test_key_need_not_be_ascii(start_app: StartApp) -> None:
    transport = httpx.ASGITransport(await start_app(api_key=["schlüssel"]))
    async with AsyncClient("http://test", api_key="schlüssel", transport=transport) as client:
        assert len(await client.models()) == 1


async def test_model_whose_name_has_a_slash_is_found(start_app: StartApp) -> None:
    transport = httpx.ASGITransport(await start_app(name=["owner/a model"]))
    async with AsyncClient("http://test", transport=transport) as client:
        assert (await client.model("owner/a model")).id == "owner/a model"
        answer = await client.score("Hi", ["Hello!"], model="owner/a model")
    assert answer.model == "owner/a model"


PASSING_FAULTS = pytest.mark.parametrize(
    "faults",
    [[drop], [refuse(429, **{"retry-after": "0"})], [refuse(503), drop], [half_a_body]],
    ids=["dropped", "overloaded", "twice", "half-a-body"],
)


@PASSING_FAULTS
async def test_passing_faults_are_retried(start_app: StartApp, faults: Any) -> None:
    network = FaultyNetwork(await start_app(), list(faults))
    async with AsyncClient("http://test", transport=network) as client:
        answer = await client.score("Hi", ["Hello!"])
    assert answer.items[0].candidates[0].score is not None
    assert network.attempts == len(faults) + 1


@PASSING_FAULTS
async def test_passing_faults_are_retried_by_the_blocking_client(
    start_app: StartApp, faults: Any
) -> None:
    network = FaultyNetwork(await start_app(), list(faults))

    def score() -> float | None:
        with Client("http://test", transport=BlockingNetwork(network)) as client:
            return client.score("Hi", ["Hello!"]).items[0].candidates[0].score

    assert await anyio.to_thread.run_sync(score) is not None
    assert network.attempts == len(faults) + 1


async def test_blocking_client_gives_up_on_lasting_faults_and_at_once_on_refusals(
    start_app: StartApp,
) -> None:
    app = await start_app()

    def score(network: FaultyNetwork) -> None:
        with Client("http://test", transport=BlockingNetwork(network)) as client:
            client.score("Hi", ["Hello!"], direction={"kindness": 1.0})

    lasting = FaultyNetwork(app, [refuse(429, **{"retry-after": "0"})] * 9)
    with pytest.raises(Overloaded):
        await anyio.to_thread.run_sync(score, lasting)
    assert lasting.attempts == 3
    refusing = FaultyNetwork(app, [])
    with pytest.raises(UnknownObjective):
        await anyio.to_thread.run_sync(score, refusing)
    assert refusing.attempts == 1


async def test_lasting_faults_end_with_their_error(start_app: StartApp) -> None:
    app = await start_app()
    network = FaultyNetwork(app, [refuse(429, **{"retry-after": "0"})] * 9)
    async with AsyncClient("http://test", transport=network) as client:
        with pytest.raises(Overloaded):
            await client.models()
    assert network.attempts == 3
    network = FaultyNetwork(app, [drop] * 9)
    async with AsyncClient("http://test", max_retries=0, transport=network) as client:
        with pytest.raises(ConnectionFailed, match="is the server running"):
            await client.models()
    assert network.attempts == 1


async def test_refusals_are_not_retried(start_app: StartApp) -> None:
    network = FaultyNetwork(await start_app(), [])
    async with AsyncClient("http://test", transport=network) as client:
        with pytest.raises(UnknownObjective):
            await client.score("Hi", ["Hello!"], direction={"kindness": 1.0})
    assert network.attempts == 1


async def test_many_calls_share_a_client(client: AsyncClient) -> None:
    scores: dict[int, float | None] = {}

    async def one(i: int) -> None:
        answer = await client.score(f"Question {i % 3}", ["Hello!"])
        scores[i] = answer.items[0].candidates[0].score

    async with anyio.create_task_group() as group:
        for i in range(12):
            group.start_soon(one, i)
    assert scores[0] == pytest.approx(scores[9], abs=GOLDEN_TOLERANCE)
    assert len(scores) == 12
