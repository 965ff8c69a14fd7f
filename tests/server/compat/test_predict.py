"""``POST /predict``: text-embeddings-inference's classifier."""

from __future__ import annotations

import math
from typing import Any

import httpx
import pytest

from tests.golden_cases import GOLDEN_TOLERANCE
from tests.server.compat.asking import PAIRS, joined, native, post

pytestmark = pytest.mark.anyio


def close(predictions: list[dict[str, Any]], candidate: dict[str, Any]) -> None:
    """Assert that predictions are a candidate's score and rewards, in this order."""
    expected = {"score": candidate["score"], **candidate["rewards"]}
    assert [one["label"] for one in predictions] == list(expected)
    found = [one["score"] for one in predictions]
    assert found == pytest.approx(list(expected.values()), abs=GOLDEN_TOLERANCE)


async def test_pair_and_text_are_answered_by_one_list(client: httpx.AsyncClient) -> None:
    for pair, text, expected in zip(PAIRS, joined(), await native(client), strict=True):
        for inputs in (text, [text], list(pair)):
            answer = await post(client, "/predict", {"inputs": inputs, "raw_scores": True})
            assert answer.status_code == 200, answer.text
            close(answer.json(), expected)


async def test_batch_is_answered_by_a_list_of_lists(client: httpx.AsyncClient) -> None:
    inputs = [[joined()[0]], *(list(pair) for pair in PAIRS[1:])]
    answer = (await post(client, "/predict", {"inputs": inputs, "truncate": True})).json()
    for predictions, expected in zip(answer, await native(client), strict=True):
        close(predictions, expected)
    assert (await post(client, "/predict", {"inputs": []})).json() == []


async def test_numbers_are_raw_unless_a_sigmoid_is_asked_for(client: httpx.AsyncClient) -> None:
    raw = (await post(client, "/predict", {"inputs": ["Why?", "No."]})).json()
    body = {"inputs": ["Why?", "No."], "raw_scores": False}
    squeezed = (await post(client, "/predict", body)).json()
    for before, after in zip(raw, squeezed, strict=True):
        assert after["score"] == pytest.approx(1 / (1 + math.exp(-before["score"])))


@pytest.mark.parametrize(
    ("inputs", "param"),
    [
        (3, "inputs"),
        (["a", "b", "c"], "inputs"),
        ([["a", "b", "c"]], "inputs"),
        ([["a"], "b"], "inputs"),
        ("no markup", "inputs[0]"),
        ([["Why?", "No."], [" ", "No."]], "inputs[1]"),
    ],
    ids=str,
)
async def test_what_cannot_be_scored_is_refused_with_its_place(
    client: httpx.AsyncClient, inputs: Any, param: str
) -> None:
    answer = await post(client, "/predict", {"inputs": inputs})
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == param
