"""EasyR1's batches, whose ground truth is the prompt."""

from __future__ import annotations

import pytest

from steerward.clients import Client
from steerward.clients.easyr1 import REWARD_TYPE, compute_score
from steerward.protocol.errors import InvalidRequest
from tests.contract.conftest import KEY, Served, served

__all__ = ["served"]  # a fixture, used by name below


def test_batch_has_overall_and_all_objectives(served: Served) -> None:
    url = served.url.removesuffix("/v1")
    answers = ["Fine.", "No."]
    inputs = [
        {"response": answer, "response_length": 2, "ground_truth": "Hello?"} for answer in answers
    ]
    found = compute_score(inputs, url=url, api_key=KEY)
    with Client(url, api_key=KEY) as client:
        (item,) = client.score("Hello?", answers).items
    for row, candidate in zip(found, item.candidates, strict=True):
        expected = {**candidate.rewards, "overall": candidate.score}
        assert row == pytest.approx(expected, abs=1e-4)
    assert REWARD_TYPE == "batch"


def test_missing_prompt_says_which_column_to_name() -> None:
    with pytest.raises(InvalidRequest, match=r"data\.answer_key"):
        compute_score([{"response": "Fine.", "response_length": 2, "ground_truth": ""}])
