"""OpenAI's own client against a real server: everything it reads, raises and closes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.contract.conftest import KEY, Served

ASK: dict[str, Any] = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Hello, how are you?"}],
    "max_completion_tokens": 12,
    "seed": 1,
}
DIRECTION = {"direction": {"helpfulness": 2.0, "verbosity": -1.0}}


@pytest.fixture
def client(served: Served) -> Iterator[OpenAI]:
    with OpenAI(base_url=served.url, api_key=KEY, max_retries=0) as found:
        yield found


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def num_closed(served: Served) -> float:
    name, labels = "steerward_completions_total", {"model": "tiny", "finish_reason": "closed"}
    return served.metrics.registry.get_sample_value(name, labels) or 0.0


def test_plain_answer_with_direction_and_rewards(client: OpenAI) -> None:
    answer = client.chat.completions.create(**ASK, extra_body=DIRECTION)
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert choice.model_extra is not None
    assert set(choice.model_extra["reward"]) == {"score", "direction_score", "rewards"}
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.total_tokens > answer.usage.completion_tokens > 0
    assert answer.model_extra is not None
    assert answer.model_extra["steering"]["mechanisms"] == ["conditioning"]
    assert answer._request_id


def test_answer_can_be_sent_back_as_a_turn(client: OpenAI) -> None:
    answer = client.chat.completions.create(**ASK)
    turns: list[Any] = [*ASK["messages"], answer.choices[0].message, ASK["messages"][0]]
    assert client.chat.completions.create(**{**ASK, "messages": turns}).choices


def test_several_choices_are_drawn_from_one_prompt(client: OpenAI) -> None:
    one = client.chat.completions.create(**ASK)
    four = client.chat.completions.create(**ASK, n=4)
    assert [choice.index for choice in four.choices] == [0, 1, 2, 3]
    assert len({choice.message.content for choice in four.choices}) == 4
    assert one.usage is not None
    assert four.usage is not None
    assert one.usage.prompt_tokens == four.usage.prompt_tokens


def test_stream_with_usage(client: OpenAI) -> None:
    whole = client.chat.completions.create(**ASK, n=2, extra_body=DIRECTION)
    texts, ends = ["", ""], [None, None]
    last: Any = None
    with client.chat.completions.create(
        **ASK, n=2, stream=True, stream_options={"include_usage": True}, extra_body=DIRECTION
    ) as stream:
        for chunk in stream:
            last = chunk
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                if choice.finish_reason:
                    assert choice.model_extra is not None
                    ends[choice.index] = choice.model_extra["reward"]
    assert texts == [choice.message.content for choice in whole.choices]
    assert all(ends)
    assert last.choices == []
    assert last.usage == whole.usage


def test_stream_of_the_clients_own_making(client: OpenAI) -> None:
    """`chat.completions.stream` puts the chunks together itself, and is strict about them."""
    with client.chat.completions.stream(**ASK, n=2, logprobs=True) as stream:
        kinds = {event.type for event in stream}
        # The final completion would be refused: the client wants no answer of full length.
        final = stream.current_completion_snapshot
    assert {"chunk", "content.delta", "content.done"} <= kinds
    whole = client.chat.completions.create(**ASK, n=2)
    assert [c.message.content for c in final.choices] == [c.message.content for c in whole.choices]


def test_logprobs(client: OpenAI) -> None:
    answer = client.chat.completions.create(**ASK, logprobs=True, top_logprobs=3)
    (choice,) = answer.choices
    assert choice.logprobs is not None
    assert choice.logprobs.content
    assert answer.usage is not None
    assert len(choice.logprobs.content) == answer.usage.completion_tokens
    for drawn in choice.logprobs.content:
        assert drawn.logprob <= 0.0
        assert len(drawn.top_logprobs) == 3
        assert drawn.top_logprobs[0].logprob >= drawn.top_logprobs[1].logprob


def test_text_completions(client: OpenAI) -> None:
    ask: dict[str, Any] = {"model": "tiny", "prompt": "Hello", "max_tokens": 8, "seed": 2}
    whole = client.completions.create(**ask, n=2, logprobs=2)
    found = whole.choices[0].logprobs
    assert found is not None
    assert found.tokens
    assert found.text_offset
    assert found.text_offset[0] == 0
    texts = ["", ""]
    for chunk in client.completions.create(**ask, n=2, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == [choice.text for choice in whole.choices]


def test_stop_ends_a_completion_and_is_no_part_of_it(client: OpenAI) -> None:
    likeliest = {**ASK, "temperature": 0.0, "max_completion_tokens": 30}
    text = client.chat.completions.create(**likeliest).choices[0].message.content or ""
    stop = next(text[i : i + 2] for i in range(4, len(text)) if text[i : i + 2].isalnum())
    (choice,) = client.chat.completions.create(**likeliest, stop=[stop, "never so"]).choices
    assert choice.finish_reason == "stop"
    assert choice.message.content == text[: text.index(stop)]


def test_seed_gives_the_same_answer(client: OpenAI) -> None:
    one, two = (client.chat.completions.create(**ASK, n=2) for _ in range(2))
    assert one.system_fingerprint == two.system_fingerprint
    assert [c.message for c in one.choices] == [c.message for c in two.choices]


def test_models_are_listed(client: OpenAI) -> None:
    kinds = {m.id: (m.model_extra or {})["kind"] for m in client.models.list()}
    assert kinds == {"armorm": "reward", "tiny": "policy"}
    assert client.models.retrieve("tiny").owned_by == "steerward"


@pytest.mark.parametrize(
    ("fields", "kind", "param"),
    [
        ({"model": "absent"}, openai.NotFoundError, "model"),
        ({"n": 200}, openai.UnprocessableEntityError, "n"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]},
         openai.UnprocessableEntityError, "tools"),
        ({"response_format": {"type": "json_object"}},
         openai.UnprocessableEntityError, "response_format"),
        ({"logit_bias": {"5": 1}}, openai.UnprocessableEntityError, "logit_bias"),
        ({"extra_body": {"direction": "absent"}}, openai.UnprocessableEntityError, "direction"),
        ({"extra_body": {"directions_of": {}}}, openai.UnprocessableEntityError, "directions_of"),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_refusals_are_the_clients_typed_exceptions(
    client: OpenAI, fields: Any, kind: type[openai.APIStatusError], param: str, stream: bool
) -> None:
    with pytest.raises(kind) as caught:
        client.chat.completions.create(**{**ASK, **fields}, stream=stream)
    assert caught.value.param == param
    assert caught.value.request_id


def test_wrong_key_is_an_authentication_error(served: Served) -> None:
    with OpenAI(base_url=served.url, api_key="wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            client.chat.completions.create(**ASK)
        with pytest.raises(openai.AuthenticationError):
            client.models.list()


def test_full_queue_is_a_rate_limit_error(served: Served, client: OpenAI) -> None:
    long = {**ASK, "max_completion_tokens": 200, "n": 24}
    with client.chat.completions.create(**long, stream=True) as stream:
        next(iter(stream))
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(**long)
    until(lambda: served.policy.card().running + served.policy.card().waiting == 0)
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert caught.value.code == "overloaded"


def test_deadline_in_mid_stream_is_an_api_error(served: Served, client: OpenAI) -> None:
    long = {**ASK, "max_completion_tokens": 200, "n": 24, "logprobs": True, "top_logprobs": 20}
    with pytest.raises(openai.APIError) as caught:
        for _ in client.chat.completions.create(
            **long, stream=True, extra_body={"timeout_s": 0.25, "reward": False}
        ):
            pass
    assert caught.value.code == "deadline_exceeded"
    until(lambda: served.policy.card().running == 0)


def test_stream_that_is_closed_frees_its_places(served: Served, client: OpenAI) -> None:
    before = num_closed(served)
    stream = client.chat.completions.create(
        **{**ASK, "max_completion_tokens": 200}, n=24, stream=True
    )
    next(iter(stream))
    stream.close()
    until(lambda: num_closed(served) == before + 24)
    until(lambda: served.policy.card().running + served.policy.card().waiting == 0)


@pytest.mark.anyio
async def test_request_that_is_cancelled_frees_its_places(served: Served) -> None:
    before = num_closed(served)
    async with AsyncOpenAI(base_url=served.url, api_key=KEY, max_retries=0) as client:
        asking = asyncio.create_task(
            client.chat.completions.create(**{**ASK, "max_completion_tokens": 200, "n": 24})
        )
        while not served.policy.card().running:
            await asyncio.sleep(0.001)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.to_thread(until, lambda: num_closed(served) == before + 24)
    until(lambda: served.policy.card().running + served.policy.card().waiting == 0)


@pytest.mark.anyio
async def test_sixteen_in_flight_get_the_answers_that_each_gets_alone(served: Served) -> None:
    async with AsyncOpenAI(base_url=served.url, api_key=KEY, max_retries=0) as client:

        async def ask(seed: int) -> str | None:
            answer = await client.chat.completions.create(**{**ASK, "seed": seed})
            return answer.choices[0].message.content

        together = await asyncio.gather(*(ask(seed) for seed in range(16)))
        alone = [await ask(seed) for seed in range(16)]
    assert together == alone
    assert len(set(together)) == 16
