"""``POST /score`` in the shapes of vLLM and SGLang."""

from __future__ import annotations

import math
from typing import Any

import httpx
import pytest

from tests.golden_cases import GOLDEN_TOLERANCE
from tests.server.compat.asking import PAIRS, native, post
from tests.server.conftest import BODY

pytestmark = pytest.mark.anyio

PROMPTS = [question for question, _ in PAIRS]
ANSWERS = [answer for _, answer in PAIRS]


@pytest.mark.parametrize(
    "names", [("text_1", "text_2"), ("queries", "documents"), ("data_1", "data_2")], ids=str
)
async def test_pairs_have_their_scores(client: httpx.AsyncClient, names: tuple[str, str]) -> None:
    body = {"model": "armorm", names[0]: PROMPTS, names[1]: ANSWERS}
    answer = (await post(client, "/score", body)).json()
    expected = [candidate["score"] for candidate in await native(client)]
    assert [data["index"] for data in answer["data"]] == [0, 1, 2]
    assert all(data["object"] == "score" for data in answer["data"])
    found = [data["score"] for data in answer["data"]]
    assert found == pytest.approx(expected, abs=GOLDEN_TOLERANCE)


async def test_one_prompt_goes_with_all_candidates(client: httpx.AsyncClient) -> None:
    item = BODY["items"][0]
    scored = (await client.post("/v1/score", json=BODY)).json()["items"][0]["candidates"]
    body = {"text_1": item["prompt"], "text_2": item["candidates"]}
    for path in ("/score", "/compat/vllm/score"):
        data = (await post(client, path, body)).json()["data"]
        assert [one["score"] for one in data] == [one["score"] for one in scored]
    alone = {"text_1": item["prompt"], "text_2": item["candidates"][0], "use_activation": True}
    (data,) = (await post(client, "/score", alone)).json()["data"]
    assert data["score"] == pytest.approx(1 / (1 + math.exp(-scored[0]["score"])), abs=1e-6)


@pytest.mark.parametrize("path", ["/compat/sglang/score", "/score"])
async def test_items_of_sglang_have_vectors_with_the_score_last(
    client: httpx.AsyncClient, path: str
) -> None:
    item = BODY["items"][0]
    scored = (await client.post("/v1/score", json=BODY)).json()["items"][0]["candidates"]
    body = {
        "model": "armorm", "query": item["prompt"], "items": item["candidates"],
        "label_token_ids": None, "apply_softmax": False, "item_first": False,
    }  # fmt: skip
    answer = (await post(client, path, body)).json()
    assert answer["object"] == "scoring"
    expected = [[*one["rewards"].values(), one["score"]] for one in scored]
    assert answer["scores"] == expected
    assert answer["labels"][-1] == "score"


async def test_no_candidates_have_no_scores(client: httpx.AsyncClient) -> None:
    body: dict[str, Any] = {"text_1": "Why?", "text_2": []}
    assert (await post(client, "/score", body)).json()["data"] == []
    body = {"query": "Why?", "items": []}
    assert (await post(client, "/score", body)).json()["scores"] == []


async def test_native_route_keeps_its_body(client: httpx.AsyncClient) -> None:
    answer = await post(client, "/v1/score", {"text_1": "Why?", "text_2": "No."})
    assert answer.status_code == 422
    assert (await post(client, "/score", BODY)).status_code == 422


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"text_1": "a"}, None),
        ({"text_1": "a", "queries": "a", "text_2": "b"}, None),
        ({"text_1": ["a", "b"], "text_2": ["a"]}, None),
        ({"text_1": "a", "query": "a", "items": ["b"]}, None),
        ({"query": "a", "items": ["b"], "apply_softmax": True}, "apply_softmax"),
        ({"query": "a", "items": ["b"], "label_token_ids": [1]}, "label_token_ids"),
        ({"query": [1], "items": ["b"]}, "query"),
        ({"text_1": " ", "text_2": "b"}, "prompt"),
    ],
    ids=str,
)
async def test_what_cannot_be_scored_is_refused_with_its_place(
    client: httpx.AsyncClient, body: dict[str, Any], param: str | None
) -> None:
    answer = await post(client, "/score", body)
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == param


async def test_long_candidate_is_named_by_its_place(client: httpx.AsyncClient) -> None:
    body = {"text_1": "Why?", "text_2": ["No.", "y " * 4000]}
    answer = await post(client, "/score", body)
    assert answer.status_code == 413
    assert answer.json()["error"]["param"] == "text_2[1]"
