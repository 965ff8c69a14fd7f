"""Requests for completions: what is taken, what is refused, and at which place."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from steerward.protocol.chat import ChatCompletionRequest, ChatMessage
from steerward.protocol.completions import CompletionRequest
from steerward.protocol.sampling import SampledRequest
from steerward.protocol.validation import invalid_request

MESSAGES = [{"role": "user", "content": "Hello."}]


def chat(**fields: Any) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate({"messages": MESSAGES, **fields})


def text(**fields: Any) -> CompletionRequest:
    return CompletionRequest.model_validate({"prompt": "Once", **fields})


def refusal(build: Any, **fields: Any) -> tuple[str | None, str]:
    with pytest.raises(ValidationError) as caught:
        build(**fields)
    error = invalid_request(caught.value.errors())
    return error.param, error.message


def unsupported(schema: type[SampledRequest]) -> list[str]:
    return [name for name, field in schema.model_fields.items() if field.annotation is type(None)]


@pytest.mark.parametrize("name", unsupported(ChatCompletionRequest))
def test_what_is_not_supported_is_refused_by_name(name: str) -> None:
    for value in (True, "auto", [], {}, [{"type": "function"}], 0):
        param, message = refusal(chat, **{name: value})
        assert param == name
        assert "not supported" in message


@pytest.mark.parametrize("name", ["echo", "suffix", "logit_bias"])
def test_what_text_completions_do_not_support_is_refused_by_name(name: str) -> None:
    assert refusal(text, **{name: "x"})[0] == name


def test_unknown_keys_are_refused_by_name() -> None:
    assert refusal(chat, tempo=1.0)[0] == "tempo"
    assert refusal(chat, messages=[{**MESSAGES[0], "mood": "good"}])[0] == "messages[0].mood"


@pytest.mark.parametrize(
    "name",
    [
        "n", "best_of", "temperature", "top_p", "max_completion_tokens", "max_tokens", "stop",
        "seed", "stream", "stream_options", "presence_penalty", "frequency_penalty", "logprobs",
        "top_logprobs", "user", "safety_identifier", "metadata", "model", "direction", "angle",
        "reward_model", "timeout_s", *unsupported(ChatCompletionRequest),
    ],
)  # fmt: skip
def test_null_is_the_default(name: str) -> None:
    assert chat(**{name: None}) == chat()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("n", (0, 129, 1.5, "2", True)),
        ("best_of", (0, 129)),
        ("temperature", (-0.1, 2.1, float("nan"), "1")),
        ("top_p", (0, 1.1, float("nan"))),
        ("max_completion_tokens", (0, -1)),
        ("max_tokens", (0,)),
        ("seed", (2**63, 1.5)),
        ("presence_penalty", (-2.1, 2.1)),
        ("frequency_penalty", (-2.1, 2.1)),
        ("timeout_s", (0, 3601)),
        ("steering", ("prompts", None)),
        ("num_neighbours", (0, 65)),
        ("neighbour_angle", (0, 181)),
        ("metadata", ({str(i): "" for i in range(17)}, ["a"])),
        ("stop", ([""], "", ["a"] * 5, 3)),
        ("direction", ([1.0], 1.0, "\ud800", {str(i): 1.0 for i in range(1025)})),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_out_of_range_are_refused_at_their_place(name: str, values: Any) -> None:
    for value in values:
        assert refusal(chat, **{name: value})[0] == name, value


def test_limits_themselves_are_taken() -> None:
    chat(n=128, temperature=0, top_p=1, presence_penalty=-2, frequency_penalty=2, num_neighbours=64)
    chat(temperature=2, neighbour_angle=180, seed=-(2**63), stop=["a", "b", "c", "d"], n=1)


def test_fields_that_contradict_each_other_are_refused() -> None:
    assert refusal(chat, n=3, best_of=2)[0] == "best_of"
    assert refusal(chat, max_completion_tokens=3, max_tokens=4)[0] == "max_tokens"
    assert refusal(chat, top_logprobs=3)[0] == "top_logprobs"
    assert refusal(chat, stream_options={"include_usage": True})[0] == "stream_options"
    assert refusal(chat, direction={"a": 1.0}, angle=3.0)[0] == "angle"


def test_lengths_have_one_meaning_by_either_name() -> None:
    assert chat(max_tokens=3, max_completion_tokens=3).longest == 3
    assert chat(max_tokens=3).longest == chat(max_completion_tokens=3).longest == 3
    assert chat().longest is None


def test_directions_are_numbers_or_a_name() -> None:
    assert chat(direction={"helpfulness": 1, "verbosity": -0.5}).direction == {
        "helpfulness": 1.0,
        "verbosity": -0.5,
    }
    assert chat(direction="concise").direction == "concise"
    assert refusal(chat, direction={"helpfulness": "much"})[0] == "direction.helpfulness"


def test_stop_is_a_text_or_several() -> None:
    assert chat(stop="END").stop == ["END"]
    assert chat(stop=["a", "b"]).stop == ["a", "b"]


def test_developers_are_the_system() -> None:
    messages = [{"role": "developer", "content": "Be brief."}, *MESSAGES]
    assert chat(messages=messages).turns == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello."},
    )


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "He"}, {"type": "text", "text": "llo."}]
    assert chat(messages=[{"role": "user", "content": parts}]) == chat()


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:"}},
        {"type": "text", "text": 3},
        {"type": "text"},
        {"type": "text", "text": "a", "more": 1},
        "a",
    ],
)
def test_parts_that_are_not_text_are_refused(part: Any) -> None:
    param, message = refusal(chat, messages=[{"role": "user", "content": [part]}])
    assert param == "messages[0].content"
    assert "part 0" in message


def test_answer_can_be_sent_back_as_it_came() -> None:
    answer = {
        "role": "assistant", "content": "Hi.", "refusal": None, "annotations": None,
        "audio": None, "function_call": None, "tool_calls": None,
    }  # fmt: skip
    assert ChatMessage.model_validate(answer).turn == {"role": "assistant", "content": "Hi."}


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([{"role": "assistant", "content": "Hi."}], "no user turn"),
        ([{"role": "system", "content": "Be brief."}], "role system"),
        ([{"role": "user", "content": "  "}], "empty"),
        ([{"role": "tool", "content": "42"}], "no user turn"),
        ([], "at least 1"),
        ([{"role": "user", "content": None}], "valid string"),
    ],
)
def test_conversations_that_ask_nothing_are_refused(messages: Any, words: str) -> None:
    assert words in refusal(chat, messages=messages)[1]


def test_tools_may_speak_last() -> None:
    assert len(chat(messages=[*MESSAGES, {"role": "tool", "content": "42"}]).turns) == 2


def test_alternatives_are_counted_in_both_forms() -> None:
    assert chat().num_top_logprobs is None
    assert chat(logprobs=False).num_top_logprobs is None
    assert chat(logprobs=True).num_top_logprobs == 0
    assert chat(logprobs=True, top_logprobs=20).num_top_logprobs == 20
    assert text().num_top_logprobs is None
    assert text(logprobs=0).num_top_logprobs == 0
    assert refusal(text, logprobs=6)[0] == "logprobs"
    assert refusal(chat, logprobs=True, top_logprobs=21)[0] == "top_logprobs"


def test_prompt_is_one_text() -> None:
    assert text(prompt=["Once"]) == text()
    for prompt, words in (
        (["a", "b"], "a list of 2"),
        ([], "a list of 0"),
        ([1], "token ids"),
        ([[1, 2]], "token ids"),
        (" ", "empty"),
        (3, "valid string"),
    ):
        param, message = refusal(text, prompt=prompt)
        assert param == "prompt"
        assert words in message


def test_usage_chunk_is_asked_for() -> None:
    assert not chat(stream=True).has_usage_chunk
    assert not chat(stream=True, stream_options={"include_obfuscation": False}).has_usage_chunk
    assert chat(stream=True, stream_options={"include_usage": True}).has_usage_chunk
    options = {"include_usage": True, "include_all": True}
    assert refusal(chat, stream=True, stream_options=options)[0] == "stream_options.include_all"
