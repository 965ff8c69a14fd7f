"""NeMo Gym's `/verify`, by its documented bodies."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
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


def gym_body(asked: Any, output: Any, **more: Any) -> dict[str, Any]:
    return {
        "responses_create_params": {"input": asked, **more},
        "response": {"id": "r", "output": output},
        "uuid": "row-1",
    }


REASONING = {"id": "x", "type": "reasoning", "summary": []}
USER = {"role": "user", "content": "Hello?"}
CALL = {"type": "function_call", "name": "f"}
BODIES = {
    "documented": BODY,
    "instructions": gym_body("Hello?", [MESSAGE], instructions="Be brief."),
    "reasoning": gym_body([USER, REASONING, {**USER, "content": "And?"}], [REASONING, MESSAGE]),
    "several messages": gym_body("Hello?", [MESSAGE, MESSAGE]),
    "refusal": gym_body("Hello?", [{"content": [{"type": "refusal", "refusal": "No."}]}]),
    "no output": gym_body("Hello?", []),
    "half a character": gym_body("Hello? \ud83d", [MESSAGE]),
    "call": gym_body("Hello?", [CALL]),
    "call in the prompt": gym_body([USER, CALL], [MESSAGE]),
    "image": gym_body([{"role": "user", "content": [{"type": "input_image"}]}], [MESSAGE]),
    "role": gym_body([{"role": "robot", "content": "Hi"}], [MESSAGE]),
    "ends with an answer": gym_body([USER, {"role": "assistant", "content": "A"}], [MESSAGE]),
    "nothing asked": gym_body([], [MESSAGE]),
    "empty prompt": gym_body(" ", [MESSAGE]),
    "wrong type": gym_body(3, [MESSAGE]),
    "no input": {**BODY, "responses_create_params": {}},
    "no response": {"responses_create_params": {"input": "Hello?"}},
}


@pytest.mark.parametrize("name", BODIES)
def test_body_is_answered_or_refused_as_by_the_server(url: str, name: str) -> None:
    answer = httpx.post(
        f"{url}/verify",
        content=json.dumps(BODIES[name]).encode("ascii"),
        headers={"authorization": f"Bearer {KEY}", "content-type": "application/json"},
    )
    expected = json.loads(answer.content)
    if answer.status_code != 200:
        with pytest.raises(InvalidRequest) as refused:
            asyncio.run(verifier(url, api_key=KEY)(BODIES[name]))
        assert refused.value.to_body() == expected
        return
    found = asyncio.run(verifier(url, api_key=KEY)(BODIES[name]))
    components = expected.pop("reward_components")
    assert found.pop("reward_components") == pytest.approx(components, abs=1e-4)
    assert list(found) == list(expected)
    for key, value in expected.items():
        is_number = isinstance(value, float)
        assert found[key] == (pytest.approx(value, abs=1e-4) if is_number else value)


def test_weights_give_one_component(url: str) -> None:
    answer = asyncio.run(verifier(url, api_key=KEY, weights={"objective_1": 1.0})(BODY))
    assert answer["reward_components"] == {"weighted_score": answer["reward"]}
