"""Answers in arrays: both clients, the numbers of JSON, and what is none."""

from __future__ import annotations

import json
import sys
from typing import Any

import anyio.to_thread
import httpx
import numpy as np
import pytest
from safetensors.numpy import save

from steerward.clients import AsyncClient, Client
from steerward.clients._wire import arrays_call, read_answer
from steerward.clients.arrays import ScoreArrays
from steerward.protocol.errors import ConnectionFailed, InputTooLong, InvalidRequest
from tests.clients.test_clients import BlockingNetwork, FaultyNetwork
from tests.equal_answers import assert_same
from tests.server.conftest import StartApp, start_app

__all__ = ["start_app"]  # a fixture, used by name below

pytestmark = pytest.mark.anyio

ITEMS = [
    {"prompt": "Explain rainbows.", "candidates": ["Light splits in drops.", "No."]},
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
]


async def test_arrays_hold_what_the_typed_answer_holds(start_app: StartApp) -> None:
    network = FaultyNetwork(await start_app(), [])
    options: dict[str, Any] = {
        "direction": {"objective_0": 2.0},
        "weights": {"objective_1": 1.0},
        "explain": True,
    }
    async with AsyncClient("http://test", transport=network) as client:
        answer = await client.score_items(ITEMS, **options)
        arrays = await client.score_arrays(ITEMS, **options)

    def score() -> ScoreArrays:
        with Client("http://test", transport=BlockingNetwork(network)) as client:
            return client.score_arrays(ITEMS, **options)

    by_name = answer.model_dump(exclude_none=True)
    assert_same(by_name, arrays)
    assert_same(by_name, await anyio.to_thread.run_sync(score))
    assert arrays.scores is not None
    assert arrays.coefficients is not None
    assert arrays.scores.dtype == arrays.rewards.dtype == np.float32
    sums = (arrays.coefficients * arrays.rewards).sum(axis=1)
    assert sums == pytest.approx(arrays.scores, abs=1e-5)
    arrays.rewards[:] = 0.0  # They are the caller's own.


async def test_ids_score_as_their_text_through_both_clients(start_app: StartApp) -> None:
    network = FaultyNetwork(await start_app(), [])
    async with AsyncClient("http://test", transport=network) as client:
        of_text = await client.score_items(ITEMS)
        tokenized = await client.tokenize_items(ITEMS)
        of_ids = await client.score_items(tokenized.items)
        as_mappings = await client.score_items([{"tokens": i.tokens} for i in tokenized.items])
        in_arrays = await client.score_arrays(tokenized.items)
        (item,) = (await client.tokenize("Explain rainbows.", ["No."], model="armorm")).items
        with pytest.raises(InputTooLong) as caught:
            await client.tokenize("Hi", ["y " * 4000])
        assert caught.value.param == "items[0].candidates[0]"

    def score() -> Any:
        with Client("http://test", transport=BlockingNetwork(network)) as client:
            tokenized = client.tokenize_items(ITEMS)
            assert client.tokenize("Explain rainbows.", ["No."]).items[0].tokens == item.tokens
            return client.score_items(tokenized.items)

    assert of_ids.items == of_text.items == as_mappings.items
    assert (await anyio.to_thread.run_sync(score)).items == of_text.items
    assert_same(of_text.model_dump(exclude_none=True), in_arrays)
    assert item.tokens.prompt == tokenized.items[0].tokens.prompt
    assert item.tokens.candidates == [tokenized.items[0].tokens.candidates[1]]


async def test_errors_are_their_own_class_though_arrays_were_asked_for(start_app: StartApp) -> None:
    transport = httpx.ASGITransport(await start_app())
    bad = [{"tokens": {"prompt": [1018, 5], "candidates": [[4096]], "gating_position": 1}}]
    async with AsyncClient("http://test", transport=transport) as client:
        with pytest.raises(InvalidRequest, match="4096 is not in the vocabulary") as caught:
            await client.score_arrays(bad)
    assert caught.value.param == "items[0].tokens.candidates[0][0]"


@pytest.mark.parametrize("package", ["numpy", "safetensors"])
def test_missing_package_is_named_with_the_command_before_anything_is_sent(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"{package}.*pip install 'steerward\[arrays\]'"):
        arrays_call(ITEMS)


def file(*, summary: str | None = None, **tensors: Any) -> bytes:
    return save(tensors, metadata=None if summary is None else {"summary": summary})


ROW: dict[str, Any] = {
    "item": np.zeros(1, np.int64),
    "tokens": np.ones(1, np.int64),
    "rewards": np.ones((1, 1), np.float32),
}
USAGE = {"prompt_tokens": 1, "candidate_tokens": 1, "prefix_tokens_saved": 0, "total_tokens": 2}
SUMMARY = {
    "id": "score-1", "model": "m", "weight_version": "w", "usage": USAGE, "objectives": ["a"],
}  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b'{"object": "score"}',
        b"\xff" * 100,
        file(**ROW),
        file(**ROW, summary="{}"),
        file(**ROW, summary="no JSON"),
        file(item=ROW["item"], summary=json.dumps(SUMMARY)),
        file(**ROW, summary=json.dumps(SUMMARY))[:-3],
    ],
)
def test_success_that_is_not_ours_is_a_connection_error(content: bytes) -> None:
    request = httpx.Request("POST", "http://test/v1/score")
    response = httpx.Response(200, content=content, request=request)
    with pytest.raises(ConnectionFailed, match="not a Steerward answer"):
        read_answer(arrays_call(ITEMS), response)


def test_tensors_and_keys_of_later_versions_do_no_harm() -> None:
    summary = json.dumps({**SUMMARY, "later": 1})
    arrays = ScoreArrays.from_safetensors(file(**ROW, summary=summary, later=np.zeros(3)))
    assert arrays.scores is None
    assert arrays.summary.objectives == ["a"]
