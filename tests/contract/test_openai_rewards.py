"""OpenAI's own client with a reward model, as CAMEL and NeMo Curator use it."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from tests.contract.conftest import KEY, Served

MESSAGES: list[Any] = [
    {"role": "user", "content": "Explain rainbows."},
    {"role": "assistant", "content": "Light splits in drops."},
]


def test_rewards_are_read_from_text_and_logprobs(served: Served) -> None:
    with OpenAI(base_url=served.url, api_key=KEY, max_retries=0) as client:
        answer = client.chat.completions.create(model="armorm", messages=MESSAGES)
    scored = httpx.post(
        f"{served.url}/score",
        json={"model": "armorm", "items": [{"messages": MESSAGES}]},
        headers={"authorization": f"Bearer {KEY}"},
    ).json()
    (candidate,) = scored["items"][0]["candidates"]
    (choice,) = answer.choices
    assert choice.logprobs is not None
    assert choice.logprobs.content
    rewards = {token.token: token.logprob for token in choice.logprobs.content}
    assert rewards == pytest.approx(candidate["rewards"], abs=1e-5)
    assert choice.message.content is not None
    assert choice.message.content.startswith("reward:")
    score = float(choice.message.content.removeprefix("reward:"))
    assert score == pytest.approx(candidate["score"], abs=1e-5)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 0


def test_what_cannot_be_scored_is_the_clients_typed_exception(served: Served) -> None:
    with (
        OpenAI(base_url=served.url, api_key=KEY, max_retries=0) as client,
        pytest.raises(openai.UnprocessableEntityError) as caught,
    ):
        client.chat.completions.create(model="armorm", messages=MESSAGES, temperature=0.0)
    assert caught.value.param == "temperature"


def test_question_without_an_answer_is_told_where_scores_are(served: Served) -> None:
    with (
        OpenAI(base_url=served.url, api_key=KEY, max_retries=0) as client,
        pytest.raises(openai.NotFoundError, match="/v1/score"),
    ):
        client.chat.completions.create(model="armorm", messages=MESSAGES[:1])


def test_key_is_needed(served: Served) -> None:
    with (
        OpenAI(base_url=served.url, api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.chat.completions.create(model="armorm", messages=MESSAGES)
