"""LLaMA-Factory's, vLLM's and SGLang's shapes around the same scores."""

from __future__ import annotations

import base64
import math
import re
import struct
from typing import Any

import httpx
import pytest

from tests.golden_cases import GOLDEN, GOLDEN_TOLERANCE
from tests.server.compat.asking import joined, native, post
from tests.server.conftest import StartApp, client_of

pytestmark = pytest.mark.anyio

LABELS = [*(f"objective_{k}" for k in range(19)), "score"]


async def vectors(client: httpx.AsyncClient) -> list[list[float]]:
    """Return what the vector-shaped routes should say of the pairs."""
    return [[*c["rewards"].values(), c["score"]] for c in await native(client)]


def close(expected: Any) -> Any:
    return pytest.approx(expected, abs=GOLDEN_TOLERANCE)


async def test_llama_factory_gets_a_flat_list(client: httpx.AsyncClient) -> None:
    padded = [f"<|endoftext|>{text}<|endoftext|><|endoftext|>" for text in joined()]
    body = {"model": "model", "messages": padded}
    answer = await post(client, "/v1/score/evaluation", body)
    assert answer.status_code == 200
    assert set(answer.json()) == {"id", "object", "model", "scores"}
    assert answer.json()["object"] == "score.evaluation"
    assert answer.json()["scores"] == close([c["score"] for c in await native(client)])
    limited = await post(client, "/v1/score/evaluation", {**body, "max_length": 1})
    assert limited.json()["scores"] == close(answer.json()["scores"])
    empty = await post(client, "/v1/score/evaluation", {"model": "model", "messages": []})
    assert (empty.status_code, empty.json()["scores"]) == (200, [])


async def test_last_probability_of_classify_is_the_score(client: httpx.AsyncClient) -> None:
    texts = joined("llama3")
    for i, expected in enumerate(await vectors(client)):
        body = {"model": "armorm", "input": texts[i], "use_activation": False}
        answer = (await post(client, "/classify", body)).json()
        (data,) = answer["data"]
        assert data["probs"] == close(expected)
        assert {**data, "probs": []} == {
            "index": 0, "label": "score", "probs": [], "num_classes": 20,
        }  # fmt: skip
        assert answer["labels"] == LABELS
        assert answer["object"] == "list"
        assert answer["usage"]["total_tokens"] > 0


async def test_classify_takes_lists_and_answers_in_order(client: httpx.AsyncClient) -> None:
    answer = (await post(client, "/classify", {"input": joined()})).json()
    assert [data["index"] for data in answer["data"]] == [0, 1, 2]
    assert [data["probs"] for data in answer["data"]] == [close(v) for v in await vectors(client)]
    empty = await post(client, "/classify", {"input": []})
    assert (empty.status_code, empty.json()["data"]) == (200, [])


@pytest.mark.parametrize("key", ["use_activation", "activation"])
async def test_numbers_are_squashed_only_on_demand(client: httpx.AsyncClient, key: str) -> None:
    answer = (await post(client, "/classify", {"input": joined()[0], key: True})).json()
    expected = [1 / (1 + math.exp(-value)) for value in (await vectors(client))[0]]
    assert answer["data"][0]["probs"] == close(expected)
    raw = (await post(client, "/classify", {"input": joined()[0], key: False})).json()
    unsaid = (await post(client, "/classify", {"input": joined()[0]})).json()
    assert raw["data"] == unsaid["data"]
    assert raw["data"][0]["probs"] == close((await vectors(client))[0])


async def test_sglang_classify_answers_one_text_without_a_list(client: httpx.AsyncClient) -> None:
    expected = await vectors(client)
    one = (await post(client, "/classify", {"text": joined()[0]})).json()
    assert one["embedding"] == close(expected[0])
    assert one["meta_info"]["labels"] == LABELS
    several = (await post(client, "/compat/sglang/classify", {"text": joined()})).json()
    assert [embedded["embedding"] for embedded in several] == [close(v) for v in expected]
    assert (await post(client, "/classify", {"text": []})).json() == []


async def test_last_number_of_an_embedding_is_the_score(client: httpx.AsyncClient) -> None:
    expected = await vectors(client)
    body = {"model": "armorm", "input": joined()[0]}
    answer = (await post(client, "/v1/embeddings", body)).json()
    assert answer["data"] == [{"object": "embedding", "index": 0, "embedding": close(expected[0])}]
    several = (await post(client, "/v1/embeddings", {"input": joined()})).json()
    assert [data["embedding"] for data in several["data"]] == [close(v) for v in expected]
    packed = await post(client, "/v1/embeddings", {**body, "encoding_format": "base64"})
    raw = base64.b64decode(packed.json()["data"][0]["embedding"])
    assert struct.unpack("<20f", raw) == close(expected[0])


async def test_score_beyond_a_32_bit_float_is_refused_and_not_made_infinite(
    client: httpx.AsyncClient,
) -> None:
    body = {"input": joined()[0], "encoding_format": "base64"}
    url = "/v1/embeddings?weights=objective_0:1e60;objective_3:1e60"
    answer = await post(client, url, body)
    assert answer.status_code == 422
    assert "32-bit" in answer.json()["error"]["message"]


async def test_model_of_the_body_is_a_name_or_the_source_it_came_from(
    start_app: StartApp,
) -> None:
    """Trainers only know the folder or the hub id; an unknown one is never another model."""
    async with client_of(await start_app("armorm", "seqcls-llama-1")) as client:
        for model in ("seqcls-llama-1", str(GOLDEN / "seqcls-llama-1")):
            answer = await post(client, "/classify", {"model": model, "input": joined()})
            assert answer.json()["model"] == "seqcls-llama-1"
        for url in ("/classify?model=armorm", "/v1/embeddings?model=armorm"):
            answer = await post(client, url, {"model": "elsewhere/rm", "input": joined()})
            assert answer.json()["model"] == "armorm"
        unknown = await post(client, "/classify", {"model": "elsewhere/rm", "input": joined()})
        unnamed = await post(client, "/v1/score/evaluation", {"model": "model", "messages": []})
    assert unknown.status_code == 404
    assert "?model=NAME" in unknown.json()["error"]["message"]
    assert unnamed.status_code == 422


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/classify", {"model": "armorm"}, "either input"),
        ("/classify", {"input": "a", "text": "a"}, "either input"),
        ("/classify", {"text": "a", "use_activation": True}, "goes with input"),
        ("/classify", {"input": "a", "use_activation": True, "activation": False}, "differ"),
        ("/classify", {"input": [1, 2, 3]}, "input: this is neither"),
        ("/classify", {"input": ["a"], "truncate_prompt_tokens": 5}, "unknown key"),
        ("/classify", {"input": ["plain text"]}, r"input\[0\]: the text has no markup"),
        ("/v1/embeddings", {"input": "a", "dimensions": 3}, "unknown key"),
        ("/v1/score/evaluation", {"messages": [{"role": "user"}]}, "neither a text"),
    ],
)
async def test_body_that_cannot_be_scored_is_refused_by_status(
    client: httpx.AsyncClient, path: str, body: Any, words: str
) -> None:
    answer = await post(client, path, body)
    assert answer.status_code == 422
    assert re.search(words, answer.json()["error"]["message"])
