"""Completions over HTTP: shapes, streams, steering, refusals."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from steerward.protocol.chat import ChatCompletion, ChatCompletionChunk
from steerward.protocol.completions import Completion
from steerward.protocol.policies import PolicyCard
from steerward.protocol.scoring import ModelList
from tests.policies import save_policy
from tests.server.conftest import StartApp, client_of
from tests.server.generation.asking import (
    ASK,
    CHAT,
    CONCISE,
    MESSAGES,
    TEXT,
    ask,
    policy_of,
    refused,
    streamed,
)

pytestmark = pytest.mark.anyio


async def test_answer_has_choices_usage_rewards_and_what_was_done(
    client: httpx.AsyncClient,
) -> None:
    answer = await client.post(CHAT, json={**ASK, "n": 3, "direction": CONCISE})
    found = ChatCompletion.model_validate(answer.json())
    assert [choice.index for choice in found.choices] == [0, 1, 2]
    assert found.model == "tiny"
    assert found.id.startswith("chatcmpl-")
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    assert found.usage.completion_tokens <= 36
    for choice in found.choices:
        assert choice.message.role == "assistant"
        assert choice.logprobs is None
        assert choice.reward is not None
        assert choice.reward.direction_score is not None
        assert len(choice.reward.rewards) == 19
    steering = found.steering
    assert steering.mode == "prompt"
    assert steering.mechanisms == ["conditioning"]
    assert steering.system == "Maximize helpfulness*89 + verbosity*-45"
    assert steering.reward_model == "armorm"
    assert steering.reward_weight_version
    assert steering.direction == pytest.approx({"helpfulness": 0.8944, "verbosity": -0.4472}, 1e-3)
    assert answer.headers["x-weight-version"]
    first_ms, total_ms = (
        float(answer.headers[f"x-{name}-ms"]) for name in ("first-token", "total")
    )
    assert 0 < first_ms < total_ms


async def test_prompt_is_counted_once(client: httpx.AsyncClient) -> None:
    one, four = [await ask(client, n=n) for n in (1, 4)]
    assert one["usage"]["prompt_tokens"] == four["usage"]["prompt_tokens"] > 0


async def test_same_seed_gives_the_same_answer(client: httpx.AsyncClient) -> None:
    one, two, other = [await ask(client, n=2, seed=seed) for seed in (1, 1, 2)]
    texts = [[c["message"]["content"] for c in answer["choices"]] for answer in (one, two, other)]
    assert texts[0] == texts[1] != texts[2]
    assert one["system_fingerprint"] == two["system_fingerprint"]


async def test_scores_are_those_of_the_scoring_route(client: httpx.AsyncClient) -> None:
    """The conditioning turn is the policy's business: the reward model does not read it."""
    answer = await ask(client, n=2, direction=CONCISE)
    texts = [choice["message"]["content"] for choice in answer["choices"]]
    item = {"prompt": MESSAGES, "candidates": texts}
    direction = {"objective_0": 2.0, "objective_1": -1.0}
    scored = await client.post("/v1/score", json={"items": [item], "direction": direction})
    candidates = scored.json()["items"][0]["candidates"]
    for choice, candidate in zip(answer["choices"], candidates, strict=True):
        for name in ("score", "direction_score"):
            assert choice["reward"][name] == pytest.approx(candidate[name], abs=1e-4)


@pytest.mark.parametrize("path", [CHAT, TEXT])
async def test_stream_is_the_answer_in_pieces(client: httpx.AsyncClient, path: str) -> None:
    fields: dict[str, Any] = {"n": 3, "seed": 4, "logprobs": 1 if path == TEXT else True}
    if path == TEXT:
        fields |= {"prompt": "Hello", "max_tokens": 12}
    whole = await ask(client, path, **fields)
    *chunks, last = await streamed(client, path, **fields, stream_options={"include_usage": True})
    schema = ChatCompletionChunk if path == CHAT else Completion
    for chunk in chunks:
        schema.model_validate(chunk)
        assert chunk["usage"] is None
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1
    assert last["choices"] == []
    assert last["usage"] == whole["usage"]
    assert chunks[0]["steering"]["reward_weight_version"] is None
    assert chunks[-1]["steering"] == whole["steering"]
    assert not any("steering" in chunk for chunk in chunks[1:-1])
    for index, choice in enumerate(whole["choices"]):
        pieces = [c for chunk in chunks for c in chunk["choices"] if c["index"] == index]
        assert [piece["finish_reason"] for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
        assert pieces[-1]["finish_reason"] == choice["finish_reason"]
        assert pieces[-1]["reward"] == choice["reward"]
        if path == CHAT:
            assert pieces[0]["delta"] == {"role": "assistant", "content": ""}
            assert pieces[-1]["delta"] == {}
            texts = [piece["delta"].get("content", "") for piece in pieces]
            assert "".join(texts) == choice["message"]["content"]
        else:
            assert "".join(piece["text"] for piece in pieces) == choice["text"]
        key = "content" if path == CHAT else "text_offset"
        found = [entry for piece in pieces for entry in (piece["logprobs"] or {key: []})[key]]
        assert len(found) == len(choice["logprobs"][key])
        if path == TEXT:
            assert found == choice["logprobs"]["text_offset"]


async def test_choices_of_a_stream_are_interleaved(client: httpx.AsyncClient) -> None:
    chunks = await streamed(client, n=2, reward=False)
    order = [chunk["choices"][0]["index"] for chunk in chunks]
    assert order[:2] == [0, 1]
    assert order != sorted(order)


async def test_logprobs_of_texts_point_into_the_text(client: httpx.AsyncClient) -> None:
    answer = Completion.model_validate(
        await ask(client, TEXT, prompt="Hello", max_tokens=30, logprobs=2, seed=3, reward=False)
    )
    (choice,) = answer.choices
    found = choice.logprobs
    assert found is not None
    assert answer.usage is not None
    assert len(found.tokens) == answer.usage.completion_tokens
    for token, offset in zip(found.tokens, found.text_offset, strict=True):
        if token.startswith("<|"):
            break  # The text leaves it out.
        if token.isascii():
            assert choice.text[offset : offset + len(token)] == token
    for token, logprob, top in zip(
        found.tokens, found.token_logprobs, found.top_logprobs, strict=True
    ):
        assert top[token] >= logprob


async def test_direction_by_name_by_angle_and_by_numbers(client: httpx.AsyncClient) -> None:
    ways: list[dict[str, Any]] = [
        {"direction": CONCISE},
        {"direction": "concise"},
        {"angle": -26.565051177077990},
    ]
    answers = [await ask(client, **way) for way in ways]
    assert len({answer["steering"]["system"] for answer in answers}) == 1
    assert len({answer["choices"][0]["message"]["content"] for answer in answers}) == 1


async def test_best_of_returns_the_best_first(client: httpx.AsyncClient) -> None:
    answer = await ask(client, n=2, best_of=6, steering="best_of", direction=CONCISE)
    scores = [choice["reward"]["direction_score"] for choice in answer["choices"]]
    assert scores == sorted(scores, reverse=True)
    assert answer["steering"]["samples"] == 6
    assert "selection" in answer["steering"]["mechanisms"]
    assert answer["usage"]["completion_tokens"] > 2 * 12
    chunks = await streamed(client, n=2, best_of=6, steering="best_of", direction=CONCISE)
    ends = [c["choices"][0] for c in chunks if c["choices"][0]["finish_reason"]]
    assert [end["reward"]["direction_score"] for end in ends] == pytest.approx(scores)


async def test_rewards_can_be_left_out_or_come_from_another_model(
    start_app: StartApp, policy_folder: str
) -> None:
    app = await start_app("armorm", "seqcls-llama-1", policy=[policy_folder])
    async with client_of(app) as client:
        assert (await ask(client, reward=False))["choices"][0]["reward"] is None
        other = await ask(client, reward_model="seqcls-llama-1")
        assert other["steering"]["reward_model"] == "seqcls-llama-1"
        assert len(other["choices"][0]["reward"]["rewards"]) == 1
        status, error = await refused(client, reward_model="absent")
        assert (status, error["param"]) == (404, "reward_model")
        cards = ModelList.model_validate((await client.get("/v1/models")).json()).data
        one = await client.get("/v1/models/tiny")
    assert [card.kind for card in cards] == ["reward", "reward", "policy"]
    assert isinstance(cards[-1], PolicyCard)
    assert cards[-1].steering == ["auto", "prompt", "best_of", "neighbours"]
    assert cards[-1].reward_models == ["armorm", "seqcls-llama-1"]
    assert one.json()["conditioning"]["objectives"] == ["helpfulness", "verbosity"]


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": "absent"}, 404, "model"),
        ({"model": "armorm"}, 404, "model"),
        ({"direction": "terse"}, 422, "direction"),
        ({"direction": {"helpfulness": 0.0}}, 422, "direction"),
        ({"angle": 1e400}, 422, "angle"),
        ({"tools": []}, 422, "tools"),
        ({"temperature": 3}, 422, "temperature"),
        ({"messages": [{"role": "user", "content": "word " * 2000}]}, 413, "messages"),
    ],
    ids=lambda value: str(value)[:40],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_refusals_are_plain_errors(
    client: httpx.AsyncClient, fields: dict[str, Any], status: int, param: str, stream: bool
) -> None:
    answer = await client.post(
        CHAT,
        content=json.dumps({**ASK, **fields, "stream": stream}),
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"] == param


async def test_model_of_the_other_kind_is_told_its_route(client: httpx.AsyncClient) -> None:
    _, error = await refused(client, model="armorm")
    assert "/v1/score" in error["message"]
    item = {"prompt": "a", "candidates": ["b"]}
    answer = await client.post("/v1/score", json={"model": "tiny", "items": [item]})
    assert answer.status_code == 404
    assert CHAT in answer.json()["error"]["message"]


async def test_server_without_policies_says_so(start_app: StartApp) -> None:
    async with client_of(await start_app()) as client:
        status, error = await refused(client)
    assert status == 404
    assert "--policy" in error["message"]


async def test_model_may_be_left_out_where_there_is_one(
    start_app: StartApp, policy_folder: str
) -> None:
    app = await start_app(policy=[policy_folder] * 2, policy_name=["one", "two"])
    async with client_of(app) as client:
        status, error = await refused(client)
        assert (status, error["param"]) == (422, "model")
        assert "one, two" in error["message"]
        assert (await ask(client, model="two"))["model"] == "two"


async def test_angle_needs_a_rule(start_app: StartApp, tmp_path: Any) -> None:
    app = await start_app(policy=[str(save_policy(tmp_path / "plain", rule=None))])
    async with client_of(app) as client:
        status, error = await refused(client, angle=10.0)
        assert (status, error["param"]) == (422, "angle")
        (card,) = [c for c in (await client.get("/v1/models")).json()["data"] if c["id"] == "plain"]
    assert card["steering"] == ["auto", "best_of"]


async def test_longer_completions_than_the_server_allows_are_refused(
    start_app: StartApp, policy_folder: str
) -> None:
    app = await start_app(policy=[policy_folder], max_completion_tokens=5)
    async with client_of(app) as client:
        for name in ("max_tokens", "max_completion_tokens"):
            status, error = await refused(client, **{"max_completion_tokens": None, name: 6})
            assert (status, error["param"]) == (422, name)
        answer = await ask(client, max_completion_tokens=None)
    assert answer["usage"]["completion_tokens"] <= 5


async def test_readiness_and_drain_cover_policies(app: FastAPI, client: httpx.AsyncClient) -> None:
    assert (await client.get("/readyz")).status_code == 200
    app.state.steerward.begin_drain()
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    status, error = await refused(client)
    assert (status, error["code"]) == (503, "not_ready")


async def test_failed_step_is_an_error_and_no_text(app: FastAPI, client: httpx.AsyncClient) -> None:
    broken = iter([True])

    def break_once(*_: object) -> None:
        if next(broken, False):
            raise RuntimeError("out of memory")

    hook = policy_of(app)._weights.own.model.register_forward_pre_hook(break_once)
    status, error = await refused(client, stream=True)
    assert (status, error["code"]) == (500, "engine_failure")
    hook.remove()
    assert (await ask(client))["choices"]


async def test_policy_that_has_stopped_makes_the_server_not_ready(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    policy_of(app).close()
    answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["error"]["message"].startswith("tiny: ")


async def test_metrics_tell_tokens_ends_and_times(client: httpx.AsyncClient) -> None:
    answer = await ask(client, n=3, best_of=5, steering="best_of", direction=CONCISE)
    text = (await client.get("/metrics")).text
    drawn = answer["usage"]["completion_tokens"]
    assert f'steerward_completion_tokens_total{{model="tiny"}} {drawn}.0' in text
    ends = [c["finish_reason"] for c in answer["choices"]]
    for reason in set(ends):
        line = f'steerward_completions_total{{finish_reason="{reason}",model="tiny"}}'
        assert f"{line} {ends.count(reason)}.0" in text
    for name in ("time_to_first_token_seconds", "completion_duration_seconds"):
        assert f'steerward_{name}_count{{model="tiny"}} 1.0' in text
    for name in ("running_completions", "waiting_completions"):
        assert f'steerward_{name}{{model="tiny"}} 0.0' in text
