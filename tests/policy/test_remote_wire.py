"""What is sent to other servers, and what their lists and errors come to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from steerward.policy.generation import Prompt, Sampling
from steerward.policy.remote_wire import (
    PromptGroup,
    RemoteModel,
    completions_body,
    completions_path,
    error_of_answer,
    group_prompts,
    key_headers,
    read_models,
    server_address,
)
from steerward.protocol.errors import (
    DeadlineExceeded,
    EngineFailure,
    InputTooLong,
    InvalidRequest,
    NotFound,
    NotReady,
    Overloaded,
    SteerwardError,
)

CHAT = Prompt(({"role": "user", "content": "Hi"},))
TEXT = Prompt(text="Once")


def refused(status: int, body: object, **headers: str) -> SteerwardError:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return error_of_answer(status, content, server="http://peer", **headers)


@pytest.mark.parametrize(
    "url", ["http://peer:9000", "http://peer:9000/", "http://peer:9000/v1", " http://peer:9000/v1/"]
)
def test_the_version_behind_an_address_may_be_left_out(url: str) -> None:
    assert str(server_address(url)).rstrip("/") == "http://peer:9000"


@pytest.mark.parametrize("url", ["", "peer:9000", "ftp://peer", "http://", "http://peer:port"])
def test_addresses_that_are_none_are_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match="the policy's URL") as caught:
        server_address(url)
    assert caught.value.param == "url"


def test_a_key_is_sent_as_a_bearer_key() -> None:
    assert key_headers(None) == {}
    assert key_headers("sécret") == {b"authorization": "Bearer sécret".encode()}


@pytest.mark.parametrize("key", ["", " s3cret", "s3\ncret"])
def test_keys_that_no_header_can_carry_are_refused_and_not_told(key: str) -> None:
    with pytest.raises(InvalidRequest, match="API key is empty, or has") as caught:
        key_headers(key)
    assert not key or key not in caught.value.message


def test_equal_prompts_are_sent_once() -> None:
    equal = Prompt(({"role": "user", "content": "Hi"},))
    other = Prompt(({"role": "user", "content": "Hi!"},))
    assert group_prompts([CHAT, other, equal, TEXT]) == [
        PromptGroup(CHAT, (0, 2)),
        PromptGroup(other, (1,)),
        PromptGroup(TEXT, (3,)),
    ]


def test_messages_go_to_the_chat_endpoint_with_what_was_asked_for() -> None:
    sampling = Sampling(
        max_tokens=7,
        temperature=0.0,
        top_p=0.9,
        stop=("\n", "END"),
        seed=3,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        top_logprobs=0,
    )
    assert completions_path(CHAT) == "/v1/chat/completions"
    assert completions_body(PromptGroup(CHAT, (0, 1)), sampling, model="llama") == {
        "model": "llama",
        "messages": [{"role": "user", "content": "Hi"}],
        "n": 2,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_completion_tokens": 7,
        "temperature": 0.0,
        "top_p": 0.9,
        "stop": ["\n", "END"],
        "seed": 3,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "logprobs": True,
        "top_logprobs": 0,
    }


def test_text_goes_to_the_older_endpoint() -> None:
    sampling = Sampling(max_tokens=7, top_logprobs=2)
    assert completions_path(TEXT) == "/v1/completions"
    assert completions_body(PromptGroup(TEXT, (0,)), sampling, model="llama") == {
        "model": "llama",
        "prompt": "Once",
        "n": 1,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 7,
        "logprobs": 2,
    }


@pytest.mark.parametrize(
    ("seed", "first", "sent"), [(3, 0, 3), (3, 4, 7), (2**63 - 1, 1, -(2**63)), (-5, 2, -3)]
)
def test_each_group_draws_from_streams_of_its_own(seed: int, first: int, sent: int) -> None:
    group = PromptGroup(CHAT, (first, first + 1))
    assert completions_body(group, Sampling(seed=seed), model="m")["seed"] == sent


def test_defaults_are_the_other_servers_and_ours_is_told_not_to_score() -> None:
    fixed = {"model", "messages", "n", "stream", "stream_options"}
    assert completions_body(PromptGroup(CHAT, (0,)), Sampling(), model="m").keys() == fixed
    ours = completions_body(PromptGroup(CHAT, (0,)), Sampling(), model="m", is_steerward=True)
    assert ours.keys() == fixed | {"reward"}
    assert ours["reward"] is False


VLLM = [
    {"id": "llama", "object": "model", "parent": None, "max_model_len": 8192},
    {"id": "adapter", "object": "model", "parent": "llama", "max_model_len": None},
]
OURS = [
    {"id": "pocket", "kind": "reward_model", "max_input_tokens": 512, "weight_version": "r"},
    {
        "id": "tiny",
        "kind": "policy",
        "parent": None,
        "max_input_tokens": 256,
        "weight_version": "w",
    },
    {"id": "lora", "kind": "policy", "parent": "tiny", "max_input_tokens": 256},
]


@pytest.mark.parametrize(
    ("listed", "wanted", "expected"),
    [
        (VLLM, None, RemoteModel("llama", 8192)),
        (VLLM, "adapter", RemoteModel("adapter")),
        (OURS, None, RemoteModel("tiny", 256, "w", is_steerward=True)),
        ([{"id": "gpt"}], None, RemoteModel("gpt")),
        ([], "hidden", RemoteModel("hidden")),
        ([{"id": "m", "max_model_len": "long"}], None, RemoteModel("m")),
    ],
)
def test_the_only_policy_is_taken_or_the_one_that_is_named(
    listed: list[Any], wanted: str | None, expected: RemoteModel
) -> None:
    content = json.dumps({"object": "list", "data": listed}).encode()
    assert read_models(content, wanted=wanted) == expected


@pytest.mark.parametrize("names", [[], ["a", "b"], [f"m{i}" for i in range(50)]])
def test_without_exactly_one_policy_a_name_is_asked_for(names: list[str]) -> None:
    content = json.dumps({"data": [{"id": name} for name in names]}).encode()
    with pytest.raises(NotReady, match=rf"serves {len(names)} policies.*name the one") as caught:
        read_models(content, wanted=None)
    assert all(name in caught.value.message for name in names[:10])
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"data": 3}',
        b'{"data": [{}]}',
        b'{"data": ["m"]}',
        b'{"data": [{"id": 3}]}',
        b'{"data": [{"id": ""}]}',
        b"\xff",
    ],
)
def test_answers_that_are_no_list_of_models_are_told(content: bytes) -> None:
    with pytest.raises(NotReady, match="no list of models"):
        read_models(content, wanted=None)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (404, {"error": {"message": "gone", "code": "not_found"}}, NotFound),
        (404, {"error": {"message": "The model `x` does not exist.", "code": 404}}, NotFound),
        (
            422,
            {"error": {"message": "bad", "param": "n", "code": "invalid_request"}},
            InvalidRequest,
        ),
        (
            400,
            {"object": "error", "message": "bad", "type": "BadRequestError", "code": 400},
            InvalidRequest,
        ),
        (400, {"error": {"message": "m", "code": "context_length_exceeded"}}, InputTooLong),
        (
            400,
            {"message": "This model's maximum context length is 8192 tokens.", "code": 400},
            InputTooLong,
        ),
        (413, {"error": {"message": "long", "code": "input_too_long"}}, InputTooLong),
        (429, {"error": {"message": "full", "code": "overloaded"}}, Overloaded),
        (500, {"error": {"message": "boom", "code": "engine_failure"}}, EngineFailure),
        (500, b"Internal Server Error", EngineFailure),
        (502, b"<html>", NotReady),
        (504, {"error": {"message": "late", "code": "deadline_exceeded"}}, DeadlineExceeded),
        (301, b"", EngineFailure),
        (500, {"error": {"message": "m", "code": "connection_failed"}}, EngineFailure),
        (400, {"error": "plain words"}, InvalidRequest),
    ],
)
def test_errors_are_typed_whoever_wrote_them(
    status: int, body: object, expected: type[SteerwardError]
) -> None:
    error = refused(status, body)
    assert type(error) is expected
    assert error.status >= 400


def test_messages_and_places_of_errors_are_passed_on() -> None:
    error = refused(422, {"error": {"message": "n is 0", "param": "n", "code": 422}})
    assert (error.message, error.param) == ("n is 0", "n")
    assert refused(400, {"error": "plain words"}).message == "plain words"
    assert len(refused(400, {"error": {"message": "m" * 10**6}}).message) <= 1000


def test_a_refused_key_is_not_our_callers() -> None:
    error = refused(401, {"error": {"message": "wrong key", "code": "unauthorized"}})
    assert isinstance(error, NotReady)
    assert "http://peer refused the API key" in error.message


@pytest.mark.parametrize(
    ("header", "expected"), [("3", 3.0), (None, 1.0), ("soon", 1.0), ("9999", 60.0), ("-1", 0.0)]
)
def test_the_other_servers_patience_is_passed_on(header: str | None, expected: float) -> None:
    error = error_of_answer(429, b"", server="http://peer", retry_after=header)
    assert error.retry_after_s == expected
    assert refused(422, {}).retry_after_s is None
