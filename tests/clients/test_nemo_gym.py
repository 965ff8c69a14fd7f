"""NeMo Gym's `/verify`, by its documented bodies."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from steerward.clients import Client
from steerward.clients.nemo_gym import verifier
from steerward.protocol.errors import InvalidRequest
from tests.contract.conftest import KEY, Served, served

__all__ = ["served"]  # a fixture, used by name below

TEXT = {"type": "output_text", "text": "Fine.", "annotations": []}
MESSAGE = {"id": "m", "type": "message", "role": "assistant", "content": [TEXT]}
BODY: dict[str, Any] = {
    "responses_create_params": {
        "input": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "input_text", "text": "Hello?"}]},
        ]
    },
    "response": {"id": "r", "output": [{"type": "reasoning", "summary": []}, MESSAGE]},
}


@pytest.fixture
def url(served: Served) -> str:
    return served.url.removesuffix("/v1")


def test_reward_is_the_sum_of_its_components(url: str) -> None:
    answer = asyncio.run(verifier(url, api_key=KEY)(BODY))
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello?"}]
    with Client(url, api_key=KEY) as client:
        candidate = client.score(turns, ["Fine."], explain=True).items[0].candidates[0]
    assert answer["reward"] == pytest.approx(candidate.score, abs=1e-4)
    assert answer["reward"] == sum(answer["reward_components"].values())
    assert answer["reward_components"] == pytest.approx(candidate.contributions, abs=1e-4)
    assert answer["objective/objective_0"] == pytest.approx(
        candidate.rewards["objective_0"], abs=1e-4
    )
    assert {name: answer[name] for name in BODY} == BODY


def test_weights_give_one_component(url: str) -> None:
    answer = asyncio.run(verifier(url, api_key=KEY, weights={"objective_1": 1.0})(BODY))
    assert answer["reward_components"] == {"score": answer["reward"]}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"response": {"output": [{"type": "function_call"}]}}, "calls tools"),
        ({"response": {"output": []}}, "no messages"),
        ({"response": None}, "no object response"),
        ({"responses_create_params": {}}, "of type NoneType"),
    ],
)
def test_body_without_a_prompt_or_an_answer_is_refused(url: str, change: Any, match: str) -> None:
    with pytest.raises(InvalidRequest, match=match):
        asyncio.run(verifier(url)({**BODY, **change}))
