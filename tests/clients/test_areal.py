"""AReaL's calls: positional, in a pool of processes, which the function must be sent to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from steerward.clients import Client
from steerward.clients.areal import reward_function
from steerward.protocol.errors import DeadlineExceeded
from tests.contract.conftest import KEY, Served, served
from tests.other_process import in_another_process

__all__ = ["served"]  # a fixture, used by name below

RENDERED = "<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\n"
ROW: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello?"}], "answer": "4"}


def test_score_is_that_of_the_row_or_of_the_rendered_prompt(served: Served) -> None:
    url = served.url.removesuffix("/v1")
    function = reward_function(url, api_key=KEY, template="chatml")
    with Client(url, api_key=KEY) as client:
        score = client.score("Hello?", ["Fine."]).items[0].candidates[0].score
    for row in (ROW, {}):
        found = in_another_process(function, RENDERED, "Fine.<|im_end|>", [1], [2], **row)
        assert found == pytest.approx(score, abs=1e-4)


def test_deadline_is_within_the_patience_of_a_workflow() -> None:
    assert reward_function("http://127.0.0.1:9").scoring.connection.deadline_s == 12.0
    impatient = reward_function("http://127.0.0.1:9", deadline_s=0.2)
    with pytest.raises(DeadlineExceeded):
        impatient("Hello?", "Fine.", [1], [2])


def test_areals_own_wrapper_takes_the_function(served: Served) -> None:
    api = pytest.importorskip("areal.api.reward_api", reason="AReaL is not installed")
    url = served.url.removesuffix("/v1")
    function = reward_function(url, api_key=KEY)
    wrapped = api.AsyncRewardWrapper(function, max_workers=1)
    found = asyncio.run(wrapped("Hello?", "Fine.", [1], [2], **ROW))
    assert found == pytest.approx(function("Hello?", "Fine.", [1], [2], **ROW), abs=1e-4)
