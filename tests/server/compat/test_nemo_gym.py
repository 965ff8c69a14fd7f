"""``POST /verify`` with the bodies that NeMo Gym sends, answered as NeMo-RL reads them."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import httpx
import pytest

from tests.golden_cases import GOLDEN_TOLERANCE
from tests.server.compat.asking import PAIRS, native, post
from tests.server.conftest import StartApp, client_of

pytestmark = pytest.mark.anyio


def sample(question: Any, *output: Any) -> dict[str, Any]:
    """The body of a sample, with all that OpenAI's Responses have."""
    return {
        "responses_create_params": {"input": question},
        "response": {
            "id": "r", "object": "response", "created_at": 0, "model": "m",
            "parallel_tool_calls": False, "tool_choice": "auto", "tools": [],
            "output": list(output),
        },
    }  # fmt: skip


def message(text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {
        "id": "m", "type": "message", "role": "assistant", "status": "completed",
        "content": [part],
    }  # fmt: skip


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


async def test_body_comes_back_with_the_reward_of_the_native_route(
    client: httpx.AsyncClient,
) -> None:
    for (question, text), expected in zip(PAIRS, await native(client), strict=True):
        body = {**sample(user(question), message(text)), "uuid": "row-1", "helpfulness": 2}
        answer = await post(client, "/verify", body)
        assert answer.status_code == 200, answer.text
        verified = answer.json()
        assert {key: verified[key] for key in body} == body
        assert verified["reward"] == pytest.approx(expected["score"], abs=GOLDEN_TOLERANCE)
        assert verified["reward_components"] == pytest.approx(
            expected["contributions"], abs=GOLDEN_TOLERANCE
        )
        objectives = {f"objective/{name}": value for name, value in expected["rewards"].items()}
        numbers = {key: verified[key] for key in objectives}
        assert numbers == pytest.approx(objectives, abs=GOLDEN_TOLERANCE)


async def test_components_sum_to_the_reward_to_the_bit_in_any_order(
    client: httpx.AsyncClient,
) -> None:
    verified = (await post(client, "/verify", sample("Why?", message("No.")))).json()
    parts = list(verified["reward_components"].values())
    assert len(parts) == 19
    for ordered in (parts, parts[::-1], sorted(parts)):
        assert list(itertools.accumulate(ordered))[-1] == verified["reward"]
    assert math.fsum(parts) == verified["reward"]


@pytest.mark.parametrize(
    ("asked", "output"),
    [
        ("Why?", [message("No.")]),
        ([{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Why?"}]}],
         [{"type": "reasoning", "id": "x", "summary": []}, message("N"), message("o.")]),
        (user("Why?"), [{"role": "assistant", "content": "No."}]),
        (user("Why?"), [{"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}]),
    ],
    ids=["text", "parts", "plain", "refusal"],
)  # fmt: skip
async def test_all_ways_to_write_a_conversation_have_one_reward(
    client: httpx.AsyncClient, asked: Any, output: list[Any]
) -> None:
    verified = (await post(client, "/verify", sample(asked, *output))).json()
    expected = (await native(client))[1]["score"]
    assert verified["reward"] == pytest.approx(expected, abs=GOLDEN_TOLERANCE)


async def test_instructions_are_a_system_turn(client: httpx.AsyncClient) -> None:
    body = sample("Why?", message("No."))
    body["responses_create_params"]["instructions"] = "Be brief."
    verified = (await post(client, "/verify", body)).json()
    messages = [{"role": "system", "content": "Be brief."}, *user("Why?")]
    item = {"messages": [*messages, {"role": "assistant", "content": "No."}]}
    scored = (await client.post("/v1/score", json={"items": [item]})).json()
    expected = scored["items"][0]["candidates"][0]["score"]
    assert verified["reward"] == pytest.approx(expected, abs=GOLDEN_TOLERANCE)


async def test_keys_are_the_same_whatever_the_sample(client: httpx.AsyncClient) -> None:
    keys = set()
    for output in ([message("No.")], [message("")], [], [{"type": "reasoning", "summary": []}]):
        verified = (await post(client, "/verify", sample("Why?", *output))).json()
        keys.add((*verified, *verified["reward_components"]))
    assert len(keys) == 1


async def test_direction_is_the_one_component(client: httpx.AsyncClient) -> None:
    body = sample("Why?", message("No."))
    verified = (await post(client, "/verify?direction=objective_0:1", body)).json()
    expected = (await native(client, direction={"objective_0": 1.0}))[1]["direction_score"]
    assert verified["reward"] == pytest.approx(expected, abs=GOLDEN_TOLERANCE)
    assert verified["reward_components"] == {"direction_score": verified["reward"]}


async def test_single_objective_is_its_own_component(start_app: StartApp) -> None:
    async with client_of(await start_app("seqcls-llama-1")) as client:
        verified = (await post(client, "/verify", sample("Why?", message("No.")))).json()
    ((name, value),) = verified["reward_components"].items()
    assert verified[f"objective/{name}"] == pytest.approx(value)
    assert verified["reward"] == value


async def test_body_with_odd_values_comes_back(client: httpx.AsyncClient) -> None:
    body = {**sample("Why? \ud83d", message("No. \ud83c")), "big": 2**70}
    answer = await post(client, "/verify", body)
    assert answer.status_code == 200
    verified = json.loads(answer.content)
    assert {key: verified[key] for key in body} == body


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (sample("Why?", {"type": "function_call", "name": "f"}), "response.output[0]"),
        (sample("Why?", {"type": "message", "content": [{"type": "image"}]}), "response.output[0]"),
        (sample("Why?", {"type": "message", "content": 3}), "response.output[0]"),
        (sample([{"role": "robot", "content": "a"}], message("No.")),
         "responses_create_params.input[0]"),
        (sample([{"type": "function_call_output", "output": "a"}], message("No.")),
         "responses_create_params.input[0]"),
        (sample([], message("No.")), "responses_create_params.input"),
        ({"responses_create_params": {"input": "Why?"}}, "response"),
    ],
    ids=["call", "image", "number", "role", "tool", "empty", "missing"],
)  # fmt: skip
async def test_what_is_not_text_is_refused_with_its_place(
    client: httpx.AsyncClient, body: dict[str, Any], param: str
) -> None:
    answer = await post(client, "/verify", body)
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == param
