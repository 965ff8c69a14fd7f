"""A rollout of verifiers: one reward, the objectives as metrics, one request."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from steerward.clients import Client
from steerward.clients.verifiers import functions
from steerward.protocol.errors import InvalidRequest
from tests.contract.conftest import KEY, Served, served

__all__ = ["served"]  # a fixture, used by name below

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello?"},
    {"role": "assistant", "content": "Fine."},
]


@pytest.fixture
def plugged(served: Served) -> Any:
    return functions(served.url.removesuffix("/v1"), api_key=KEY)


@pytest.fixture
def expected(served: Served) -> Any:
    with Client(served.url.removesuffix("/v1"), api_key=KEY) as client:
        return client.score_items([{"messages": MESSAGES}]).items[0].candidates[0]


def requests(served: Served) -> float:
    labels = {"route": "/v1/score", "status": "200"}
    return served.metrics.registry.get_sample_value("steerward_requests_total", labels) or 0.0


def test_reward_and_metrics_are_of_one_request(served: Served, plugged: Any, expected: Any) -> None:
    score, objectives = plugged
    trace = SimpleNamespace(messages=MESSAGES)
    before = requests(served)

    async def both() -> tuple[float, dict[str, float]]:
        return await score(trace), await objectives(trace)

    reward, metrics = asyncio.run(both())
    assert requests(served) == before + 1
    assert reward == pytest.approx(expected.score, abs=1e-4)
    named = {f"steerward_{name}": value for name, value in expected.rewards.items()}
    assert metrics == pytest.approx(named, abs=1e-4)


def test_every_rollout_of_many_is_scored_once(served: Served, plugged: Any) -> None:
    """Beyond eight in flight, the first were forgotten before their objectives were asked for."""
    score, objectives = plugged
    traces = [
        SimpleNamespace(messages=[*MESSAGES[:2], {"role": "assistant", "content": f"{i}."}])
        for i in range(64)
    ]
    before = requests(served)

    async def all_of(function: Any) -> list[Any]:
        return await asyncio.gather(*(function(trace) for trace in traces))

    asyncio.run(all_of(score))
    asyncio.run(all_of(objectives))
    assert requests(served) == before + len(traces)


def test_rollout_without_an_answer_is_refused(plugged: Any) -> None:
    for messages, match in ([[], "no messages"], [MESSAGES[:2], "one assistant turn"]):
        with pytest.raises(InvalidRequest, match=match):
            asyncio.run(plugged[0](SimpleNamespace(messages=messages)))


def test_verifiers_own_scoring_calls_them(plugged: Any, expected: Any) -> None:
    decorators = pytest.importorskip(
        "verifiers.v1.utils.decorators", reason="verifiers is not installed"
    )
    available = {"task": None, "trace": SimpleNamespace(messages=MESSAGES)}
    found = asyncio.run(decorators.invoke_all(list(plugged), available))
    assert found[0] == pytest.approx(expected.score, abs=1e-4)
    assert len(found[1]) == len(expected.rewards)
