"""``POST /get_reward`` with the bodies that OpenRLHF's versions send."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from tests.golden_cases import GOLDEN_TOLERANCE
from tests.server.compat.asking import PAIRS, joined, native, post, prompts
from tests.server.compat.families import FAMILIES
from tests.server.conftest import StartApp, client_of

pytestmark = pytest.mark.anyio

RESERVED = {"reward", "score", "return", "kl", "response_length", "total_length", "num_actions"}
"""Names of the trainer's own logs."""


@pytest.mark.parametrize("family", FAMILIES)
async def test_sample_by_itself_has_the_score_of_the_native_route(
    client: httpx.AsyncClient, family: str
) -> None:
    for text, prompt, candidate in zip(
        joined(family), prompts(family), await native(client), strict=True
    ):
        body = {"query": [text], "prompts": [prompt], "labels": [""]}
        answer = await post(client, "/get_reward", body)
        assert answer.status_code == 200, answer.text
        (reward,) = answer.json()["rewards"]
        assert answer.json()["scores"] == [reward]
        assert reward == pytest.approx(candidate["score"], abs=GOLDEN_TOLERANCE)


async def test_batch_of_older_versions_has_scores_in_order(client: httpx.AsyncClient) -> None:
    answer = await post(client, "/get_reward", {"query": joined()})
    expected = await native(client)
    body = answer.json()
    assert body["rewards"] == pytest.approx([c["score"] for c in expected], abs=GOLDEN_TOLERANCE)
    for name, column in body["extra_logs"].items():
        prefix, _, objective = name.partition("/")
        key = {"objective": "rewards", "gate": "gates"}[prefix]
        wanted = [candidate[key][objective] for candidate in expected]
        assert column == pytest.approx(wanted, abs=GOLDEN_TOLERANCE)


@pytest.mark.parametrize("size", [0, 1, 3])
async def test_logs_are_flat_columns_of_numbers_under_the_same_names(
    client: httpx.AsyncClient, size: int
) -> None:
    """A vector or a mapping for one sample ended the training run."""
    logs = (await post(client, "/get_reward", {"query": joined()[:size]})).json()["extra_logs"]
    names = [f"objective_{k}" for k in range(19)]
    expected = [f"objective/{name}" for name in names] + [f"gate/{name}" for name in names]
    assert list(logs) == expected
    assert not set(logs) & RESERVED
    for column in logs.values():
        assert len(column) == size
        assert all(isinstance(number, float) for number in column)


async def test_empty_lists_are_answered_with_empty_lists(client: httpx.AsyncClient) -> None:
    """A second URL gets them, and all rewards were lost if that was an error."""
    answer = await post(client, "/get_reward", {"query": [], "prompts": [], "labels": []})
    assert answer.status_code == 200
    assert answer.json()["rewards"] == answer.json()["scores"] == []


async def test_plain_text_behind_its_prompt_is_scored(client: httpx.AsyncClient) -> None:
    body = {
        "query": [f"<s> {question}{answer}</s>" for question, answer in PAIRS],
        "prompts": [question for question, _ in PAIRS],
        "labels": [None, 3, {"a": 1}],
    }
    rewards = (await post(client, "/get_reward", body)).json()["rewards"]
    expected = [candidate["score"] for candidate in await native(client)]
    assert rewards == pytest.approx(expected, abs=GOLDEN_TOLERANCE)


async def test_model_without_a_gate_logs_objectives_only(start_app: StartApp) -> None:
    async with client_of(await start_app("seqcls-llama-1")) as client:
        answer = await post(client, "/get_reward", {"query": joined()})
    assert [name.partition("/")[0] for name in answer.json()["extra_logs"]] == ["objective"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"query": ["a", "b"], "prompts": ["a"]}, "1 prompts for 2 queries"),
        ({"query": [1]}, "neither a text nor a list"),
        ({"query": ["a"], "max_len": 3}, "unknown key"),
        ({}, "query"),
        ({"query": ["a b"], "prompts": ["c"]}, r"query\[0\]: the text does not begin with"),
    ],
)
async def test_body_that_cannot_be_scored_is_refused_by_status(
    client: httpx.AsyncClient, body: Any, words: str
) -> None:
    answer = await post(client, "/get_reward", body)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert re.search(words, error["message"])
