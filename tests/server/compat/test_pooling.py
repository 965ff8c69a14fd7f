"""``POST /pooling``: vLLM's reward models."""

from __future__ import annotations

import math
from typing import Any

import httpx
import pytest

from tests.golden_cases import GOLDEN_TOLERANCE
from tests.server.compat.asking import PAIRS, joined, native, post
from tests.server.compat.families import conversation

pytestmark = pytest.mark.anyio


def vector(candidate: dict[str, Any]) -> Any:
    return pytest.approx([*candidate["rewards"].values(), candidate["score"]], abs=GOLDEN_TOLERANCE)


async def test_texts_have_their_objectives_and_the_score_last(client: httpx.AsyncClient) -> None:
    body = {"model": "armorm", "input": joined(), "encoding_format": "float"}
    answer = (await post(client, "/pooling", body)).json()
    expected = await native(client)
    assert answer["object"] == "list"
    assert answer["labels"] == [*expected[0]["rewards"], "score"]
    for i, (data, candidate) in enumerate(zip(answer["data"], expected, strict=True)):
        assert (data["index"], data["object"]) == (i, "pooling")
        assert data["data"] == vector(candidate)
    one = (await post(client, "/compat/vllm/pooling", {**body, "input": joined()[0]})).json()
    assert one["data"][0]["data"] == vector(expected[0])
    assert (await post(client, "/pooling", {"input": []})).json()["data"] == []


async def test_messages_are_one_conversation(client: httpx.AsyncClient) -> None:
    for pair, expected in zip(PAIRS, await native(client), strict=True):
        answer = (await post(client, "/pooling", {"messages": conversation(*pair)})).json()
        (data,) = answer["data"]
        assert data["data"] == vector(expected)


async def test_content_may_be_text_parts(client: httpx.AsyncClient) -> None:
    messages: list[Any] = conversation("Why?", "No.")
    messages[0]["content"] = [{"type": "text", "text": "Why?"}]
    answer = (await post(client, "/pooling", {"messages": messages})).json()
    assert answer["data"][0]["data"] == vector((await native(client))[1])


async def test_sigmoid_only_where_it_is_asked_for(client: httpx.AsyncClient) -> None:
    body: dict[str, Any] = {"messages": conversation("Why?", "No.")}
    raw = (await post(client, "/pooling", body)).json()["data"][0]["data"]
    same = (await post(client, "/pooling", {**body, "use_activation": False})).json()
    squeezed = (await post(client, "/pooling", {**body, "use_activation": True})).json()
    assert same["data"][0]["data"] == raw
    expected = [1 / (1 + math.exp(-value)) for value in raw]
    assert squeezed["data"][0]["data"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, None),
        ({"input": "a", "messages": conversation("a", "b")}, None),
        ({"input": [1, 2]}, "input"),
        ({"messages": conversation("a")}, "messages"),
        ({"messages": []}, "messages"),
        ({"input": "no markup"}, "input[0]"),
        ({"input": "a", "truncate_prompt_tokens": 5}, "truncate_prompt_tokens"),
        ({"input": "a", "task": "token_classify"}, "task"),
    ],
    ids=str,
)
async def test_what_cannot_be_scored_is_refused_with_its_place(
    client: httpx.AsyncClient, body: dict[str, Any], param: str | None
) -> None:
    answer = await post(client, "/pooling", body)
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == param
