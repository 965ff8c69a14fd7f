"""``POST /compat/slime`` with the body that slime sends, answered as it reads it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.golden_cases import GOLDEN_TOLERANCE
from tests.server.compat.asking import PAIRS, native, post
from tests.server.compat.families import BOS, END, conversation, render
from tests.server.conftest import StartApp, client_of

pytestmark = pytest.mark.anyio

SAMPLE = {"prompt": "Why?", "response": "No.", "label": None}


def samples(form: str) -> list[dict[str, Any]]:
    """The pairs with their prompts as messages, as plain text, or as a policy reads them."""
    found: list[dict[str, Any]] = []
    for question, answer in PAIRS:
        prompt: Any = question
        if form == "messages":
            prompt = conversation(question)
        elif form != "text":
            turns = conversation(question)
            prompt = BOS[form] + render(form, turns, opens_answer=True)
            # slime keeps special tokens unless it is told not to.
            answer += END[form]
        found.append({"prompt": prompt, "response": answer, "label": "42"})
    return found


@pytest.mark.parametrize("form", ["messages", "text", "chatml", "llama3", "gemma"])
async def test_answer_is_the_bare_score_of_the_native_route(
    client: httpx.AsyncClient, form: str
) -> None:
    for sample, expected in zip(samples(form), await native(client), strict=True):
        answer = await post(client, "/compat/slime", sample)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        reward = answer.json()
        assert isinstance(reward, float)
        assert reward == pytest.approx(expected["score"], abs=GOLDEN_TOLERANCE)


async def test_documented_body_byte_by_byte(client: httpx.AsyncClient) -> None:
    content = b'{"prompt": [{"role": "user", "content": "hi"}], "response": "hello", "label": null}'
    answer = await post(client, "/compat/slime", content)
    item = {"prompt": "hi", "candidates": ["hello"]}
    scored = (await client.post("/v1/score", json={"items": [item]})).json()
    expected = scored["items"][0]["candidates"][0]["score"]
    assert float(answer.text) == pytest.approx(expected, abs=GOLDEN_TOLERANCE)


async def test_keys_give_an_object_of_numbers(client: httpx.AsyncClient) -> None:
    answer = (await post(client, "/compat/slime?keys=1", SAMPLE)).json()
    expected = (await native(client))[1]
    assert list(answer) == ["score", *expected["rewards"]]
    assert answer.pop("score") == pytest.approx(expected["score"], abs=GOLDEN_TOLERANCE)
    assert answer == pytest.approx(expected["rewards"], abs=GOLDEN_TOLERANCE)
    assert isinstance((await post(client, "/compat/slime?keys=0", SAMPLE)).json(), float)


async def test_empty_response_has_the_same_keys(client: httpx.AsyncClient) -> None:
    whole = (await post(client, "/compat/slime?keys=1", SAMPLE)).json()
    empty = (await post(client, "/compat/slime?keys=1", {**SAMPLE, "response": ""})).json()
    assert list(empty) == list(whole)
    assert all(isinstance(value, float) for value in empty.values())


async def test_profile_in_the_path_steers(start_app: StartApp) -> None:
    direction = {"objective_0": 0.6, "objective_4": -0.8}
    async with client_of(await start_app(profiles={"concise": direction})) as client:
        by_profile = await post(client, "/p/concise/slime", SAMPLE)
        url = "/compat/slime?direction=objective_0:0.6;objective_4:-0.8"
        by_query = await post(client, url, SAMPLE)
        expected = (await native(client, direction=direction))[1]
    assert by_profile.json() == by_query.json()
    assert by_query.json() == pytest.approx(expected["direction_score"], abs=GOLDEN_TOLERANCE)


async def test_half_characters_are_scored(client: httpx.AsyncClient) -> None:
    cut = b'{"prompt": [{"role": "user", "content": "\\ud83d"}], "response": "ab\\ud83c"}'
    assert (await post(client, "/compat/slime", cut)).status_code == 200


@pytest.mark.parametrize(
    ("changes", "query", "param"),
    [
        ({"response": None}, "", "response"),
        ({"prompt": []}, "", "prompt"),
        ({"prompt": " "}, "", "prompt"),
        (
            {"prompt": "", "response": render("chatml", conversation("Hi", "Great"))},
            "",
            "prompt",
        ),
        ({}, "?template=chatml", "prompt"),
        ({"prompt": [{"role": "assistant", "content": "a"}]}, "", "prompt"),
        ({"prompt": [{"role": "user", "content": 3}]}, "", "prompt[0].content"),
        ({"temperature": 1.0}, "", "temperature"),
        ({}, "?keys=yes", "keys"),
        ({}, "?key=1&colour=red", "colour"),
    ],
    ids=str,
)
async def test_what_cannot_be_scored_is_refused_with_its_place(
    client: httpx.AsyncClient, changes: dict[str, Any], query: str, param: str
) -> None:
    answer = await post(client, f"/compat/slime{query}", {**SAMPLE, **changes})
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == param


async def test_overload_is_503_with_the_time_to_wait(start_app: StartApp) -> None:
    """slime takes every status for a reason to try again, and waits only as long as it likes."""
    app = await start_app(max_queued_tokens=1, max_batch_tokens=64)
    async with client_of(app) as client:
        long = {**SAMPLE, "response": "word " * 300}
        asking = [{**long, "prompt": f"p {i}"} for i in range(12)]
        answers = await asyncio.gather(*(post(client, "/compat/slime", one) for one in asking))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert refused
    for answer in refused:
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["code"] == "overloaded"
