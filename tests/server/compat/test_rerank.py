"""``POST /rerank`` in the shapes of text-embeddings-inference and of Cohere."""

from __future__ import annotations

import math
from typing import Any

import httpx
import pytest

from tests.golden_cases import GOLDEN_TOLERANCE
from tests.server.compat.asking import post

pytestmark = pytest.mark.anyio

QUERY = "Explain rainbows."
TEXTS = ["Light splits in drops. 🌈", "No.", "Rainbows happen.", "No."]


async def scores_of(client: httpx.AsyncClient, **steering: Any) -> list[float]:
    item = {"prompt": QUERY, "candidates": TEXTS}
    scored = (await client.post("/v1/score", json={"items": [item], **steering})).json()
    key = "direction_score" if steering else "score"
    return [candidate[key] for candidate in scored["items"][0]["candidates"]]


def best_first(scores: list[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda i: -scores[i])


async def test_texts_are_ranked_by_their_scores(client: httpx.AsyncClient) -> None:
    body = {"query": QUERY, "texts": TEXTS, "raw_scores": True, "truncate": True}
    ranks = (await post(client, "/rerank", body)).json()
    scores = await scores_of(client)
    assert [rank["index"] for rank in ranks] == best_first(scores)
    for rank in ranks:
        assert set(rank) == {"index", "score"}
        assert rank["score"] == pytest.approx(scores[rank["index"]], abs=GOLDEN_TOLERANCE)
    with_text = (await post(client, "/rerank", {**body, "return_text": True})).json()
    assert [rank["text"] for rank in with_text] == [TEXTS[rank["index"]] for rank in ranks]


async def test_sigmoid_only_where_it_is_asked_for(client: httpx.AsyncClient) -> None:
    body = {"query": QUERY, "texts": TEXTS}
    raw = (await post(client, "/compat/tei/rerank", body)).json()
    squeezed = (await post(client, "/rerank", {**body, "raw_scores": False})).json()
    assert [rank["index"] for rank in squeezed] == [rank["index"] for rank in raw]
    for before, after in zip(raw, squeezed, strict=True):
        assert after["score"] == pytest.approx(1 / (1 + math.exp(-before["score"])))


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank", "/compat/vllm/rerank"])
async def test_documents_are_answered_in_the_shape_of_cohere(
    client: httpx.AsyncClient, path: str
) -> None:
    body = {"model": "armorm", "query": QUERY, "documents": [*TEXTS[:2], {"text": TEXTS[2]}]}
    answer = (await post(client, path, {**body, "top_n": 2, "return_documents": True})).json()
    scores = (await scores_of(client))[:3]
    results = answer["results"]
    assert [result["index"] for result in results] == best_first(scores)[:2]
    for result in results:
        score = scores[result["index"]]
        assert result["relevance_score"] == pytest.approx(score, abs=GOLDEN_TOLERANCE)
        assert result["document"] == {"text": TEXTS[result["index"]]}
    assert answer["model"] == "armorm"
    assert answer["usage"]["total_tokens"] > 0
    plain = (await post(client, path, body)).json()["results"]
    assert len(plain) == 3
    assert all(set(result) == {"index", "relevance_score"} for result in plain)


async def test_prompt_is_computed_once(client: httpx.AsyncClient) -> None:
    body = {"query": QUERY, "documents": TEXTS}
    total = (await post(client, "/v1/rerank", body)).json()["usage"]["total_tokens"]
    item = {"prompt": QUERY, "candidates": TEXTS}
    usage = (await client.post("/v1/score", json={"items": [item]})).json()["usage"]
    assert total == usage["total_tokens"]


async def test_direction_decides_the_order(client: httpx.AsyncClient) -> None:
    body = {"query": QUERY, "texts": TEXTS}
    ranks = (await post(client, "/rerank?direction=objective_3:-1", body)).json()
    scores = await scores_of(client, direction={"objective_3": -1.0})
    assert [rank["index"] for rank in ranks] == best_first(scores)


@pytest.mark.parametrize("truncate", [True, False])
async def test_too_long_is_refused_with_its_place_whatever_truncate_says(
    client: httpx.AsyncClient, truncate: bool
) -> None:
    body = {"query": QUERY, "texts": ["No.", "y " * 4000], "truncate": truncate}
    answer = await post(client, "/rerank", body)
    assert answer.status_code == 413
    error = answer.json()["error"]
    assert error["param"] == "texts[1]"
    assert ("nothing is cut here" in error["message"]) == truncate


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"texts": TEXTS}, None),
        ({"documents": None}, None),
        ({"documents": []}, "documents"),
        ({"query": " "}, "query"),
        ({"top_n": 0}, "top_n"),
        ({"raw_scores": True}, None),
        ({"max_tokens_per_doc": 10}, "max_tokens_per_doc"),
        ({"documents": [3]}, "documents[0]"),
    ],
    ids=str,
)
async def test_what_cannot_be_scored_is_refused_with_its_place(
    client: httpx.AsyncClient, changes: dict[str, Any], param: str | None
) -> None:
    answer = await post(client, "/rerank", {"query": QUERY, "documents": TEXTS, **changes})
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == param
