"""Rows of distilabel with their ratings."""

from __future__ import annotations

from typing import Any

import pytest

from steerward.clients import Client
from steerward.clients.distilabel import rating_function
from steerward.protocol.errors import InvalidRequest
from tests.contract.conftest import KEY, Served, served

__all__ = ["served"]  # a fixture, used by name below

ROWS: list[dict[str, Any]] = [
    {"instruction": "Hello?", "generations": ["Fine.", "No."]},
    {"instruction": "Hello?", "response": "No."},
    {
        "conversation": [
            {"role": "user", "content": "Hello?"},
            {"role": "assistant", "content": "Fine."},
        ]
    },
]


@pytest.fixture
def url(served: Served) -> str:
    return served.url.removesuffix("/v1")


def test_each_form_of_row_gets_its_scores(url: str) -> None:
    rows = rating_function(url, api_key=KEY)(ROWS)
    with Client(url, api_key=KEY) as client:
        fine, no = client.score("Hello?", ["Fine.", "No."]).items[0].candidates
    assert rows[0]["ratings"] == pytest.approx([fine.score, no.score], abs=1e-4)
    assert rows[1]["score"] == pytest.approx(no.score, abs=1e-4)
    assert rows[2]["score"] == pytest.approx(fine.score, abs=1e-4)
    assert rows[0]["rewards"][1] == pytest.approx(no.rewards, abs=1e-4)
    assert rows[2]["rewards"] == pytest.approx(fine.rewards, abs=1e-4)


def test_rating_that_failed_is_none_only_if_wished(url: str) -> None:
    rows = [{"instruction": "Hello?", "generations": ["rain " * 3_000, "No."]}]
    ((long, short),) = [
        row["ratings"] for row in rating_function(url, api_key=KEY, on_error="none")(rows)
    ]
    assert long is None
    assert isinstance(short, float)
    with pytest.raises(InvalidRequest, match="neither instruction nor conversation"):
        rating_function(url)([{"prompt": "Hello?"}])


def test_distilabels_own_step_yields_them(url: str) -> None:
    steps = pytest.importorskip("distilabel.steps", reason="distilabel is not installed")
    rate = rating_function(url, api_key=KEY)

    def steerward_ratings(inputs: Any) -> Any:
        yield rate(inputs)

    steerward_ratings.__annotations__["inputs"] = steps.StepInput
    step = steps.step(inputs=["instruction", "generations"], outputs=["ratings", "rewards"])
    made = step(steerward_ratings)(name="ratings")
    (rows,) = made.process(ROWS[:1])
    assert len(rows[0]["ratings"]) == 2
