"""swift's calls: classes from a registry, run together on a new loop every step."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from steerward.clients import Client
from steerward.clients.ms_swift import register
from tests.contract.conftest import KEY, Served, served

__all__ = ["served"]  # a fixture, used by name below

PROMPT = {"role": "user", "content": "Hello?"}


def test_columns_of_the_registry_share_a_request(served: Served) -> None:
    url = served.url.removesuffix("/v1")
    orms: dict[str, Any] = {}
    names = register(orms, url, objectives=["objective_2"], api_key=KEY)
    assert names == list(orms) == ["steerward_score", "steerward_objective_2"]
    rewards = [orms[name](args=None) for name in names]
    # The name under which swift logs, and how it tells what to await.
    assert [type(reward).__name__ for reward in rewards] == names
    assert all(asyncio.iscoroutinefunction(reward.__call__) for reward in rewards)
    answers = ["Fine.", "No."]
    call: dict[str, Any] = {
        "completions": answers,
        "messages": [[PROMPT, {"role": "assistant", "content": text}] for text in answers],
        "trainer_state": None,
        "is_truncated": [False, False],
    }

    async def step() -> list[Any]:
        return await asyncio.gather(*(reward(**call) for reward in rewards))

    labels = {"route": "/v1/score", "status": "200"}
    read = served.metrics.registry.get_sample_value
    before = read("steerward_requests_total", labels) or 0.0
    columns = [asyncio.run(step()) for _ in range(2)][1]
    assert read("steerward_requests_total", labels) == before + 2
    with Client(url, api_key=KEY) as client:
        candidates = client.score("Hello?", answers).items[0].candidates
    assert columns[0] == pytest.approx([found.score for found in candidates], abs=1e-4)
    objective = [found.rewards["objective_2"] for found in candidates]
    assert columns[1] == pytest.approx(objective, abs=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_swifts_own_grpo_finds_and_awaits_them(served: Served) -> None:
    swift = pytest.importorskip("swift.rewards", reason="ms-swift is not installed")
    grpo = pytest.importorskip("swift.rl_core.grpo_algorithm", reason="ms-swift is incomplete")
    names = register(swift.orms, served.url.removesuffix("/v1"), objectives=[], api_key=KEY)
    reward = swift.orms[names[0]](args=None)
    assert grpo._is_async_reward(reward)
    messages = [PROMPT, {"role": "assistant", "content": "Fine."}]
    (score,) = asyncio.run(reward(completions=["Fine."], messages=[messages]))
    assert isinstance(score, float)
