"""``POST /v1/chat/completions`` with the name of a reward model."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.golden_cases import GOLDEN_TOLERANCE
from tests.server.compat.asking import PAIRS, native, post
from tests.server.compat.families import conversation
from tests.server.conftest import StartApp, client_of

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "armorm", "messages": conversation("Why?", "No.")}


def number(answer: httpx.Response) -> float:
    """Return the reward as clients read it from the text."""
    name, _, value = answer.json()["choices"][0]["message"]["content"].partition(":")
    assert name == "reward"
    return float(value)


async def test_reward_is_the_text_and_the_objectives_are_tokens(client: httpx.AsyncClient) -> None:
    for pair, expected in zip(PAIRS, await native(client), strict=True):
        answer = await post(client, CHAT, {**ASK, "messages": conversation(*pair)})
        assert answer.status_code == 200, answer.text
        assert number(answer) == pytest.approx(expected["score"], abs=GOLDEN_TOLERANCE)
        body = answer.json()
        assert (body["object"], body["model"]) == ("chat.completion", "armorm")
        (choice,) = body["choices"]
        tokens = choice["logprobs"]["content"]
        rewards = {token["token"]: token["logprob"] for token in tokens}
        assert rewards == pytest.approx(expected["rewards"], abs=GOLDEN_TOLERANCE)
        assert all((token["bytes"], token["top_logprobs"]) == (None, []) for token in tokens)
        assert choice["finish_reason"] == "stop"
        assert choice["reward"]["score"] == pytest.approx(number(answer))
        usage = body["usage"]
        assert usage["completion_tokens"] == 0
        assert usage["total_tokens"] == usage["prompt_tokens"] > 0
        assert answer.headers["x-weight-version"] == body["system_fingerprint"]


async def test_base_url_may_be_a_profile_or_the_protocol(start_app: StartApp) -> None:
    direction = {"objective_0": 0.6, "objective_4": -0.8}
    async with client_of(await start_app(profiles={"concise": direction})) as client:
        expected = (await native(client, direction=direction))[1]
        by_path = await post(client, f"/p/concise{CHAT}", ASK)
        by_name = await post(client, CHAT, {**ASK, "direction": "concise"})
        by_numbers = await post(client, f"/compat/nim{CHAT}", {**ASK, "direction": direction})
        plain = await post(client, f"/compat/nim{CHAT}", ASK)
        both = await post(client, f"/p/concise{CHAT}", {**ASK, "direction": direction})
    for answer in (by_path, by_name, by_numbers):
        assert number(answer) == pytest.approx(expected["direction_score"], abs=GOLDEN_TOLERANCE)
        assert answer.json()["choices"][0]["reward"]["direction_score"] == number(answer)
    assert number(plain) == pytest.approx(expected["score"], abs=GOLDEN_TOLERANCE)
    assert both.status_code == 422


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"stream": True}, "stream"),
        ({"n": 2}, "n"),
        ({"temperature": 0.0}, "temperature"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"steering": "best_of"}, "steering"),
        ({"messages": conversation("Why?", "No.", " ", "No.")}, "messages"),
        ({"direction": "absent"}, "direction"),
    ],
    ids=str,
)
async def test_what_a_reward_model_does_not_do_is_refused(
    client: httpx.AsyncClient, changes: dict[str, Any], param: str
) -> None:
    answer = await post(client, CHAT, {**ASK, **changes})
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == param


async def test_what_asks_for_nothing_is_taken(client: httpx.AsyncClient) -> None:
    more = {"stream": False, "n": 1, "logprobs": True, "temperature": None, "user": "me"}
    assert (await post(client, CHAT, {**ASK, **more})).status_code == 200


async def test_policies_do_not_go_on_from_an_answer(
    start_app: StartApp, policy_folder: str
) -> None:
    async with client_of(await start_app(policy=[policy_folder])) as client:
        refused = await post(client, CHAT, {**ASK, "model": "tiny"})
        drawn = await post(
            client,
            CHAT,
            {"model": "tiny", "messages": conversation("Why?"), "max_completion_tokens": 2},
        )
    assert refused.status_code == 422
    assert refused.json()["error"]["param"] == "messages"
    assert drawn.json()["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize(("path", "status"), [(CHAT, 404), (f"/compat/nim{CHAT}", 422)])
async def test_question_without_an_answer_is_not_scored(
    client: httpx.AsyncClient, path: str, status: int
) -> None:
    answer = await post(client, path, {**ASK, "messages": conversation("Why?")})
    assert answer.status_code == status
    assert "/v1/score" in answer.text or "assistant's turn" in answer.text
