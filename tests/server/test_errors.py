"""Every error is an error object that tells the way out."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.server.conftest import BODY

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "content_type", [None, "application/x-www-form-urlencoded", "text/plain", "a" * 5000, "/"]
)
async def test_body_that_is_not_sent_as_json_is_told_the_header(
    client: httpx.AsyncClient, content_type: str | None
) -> None:
    """Plain ``curl -d`` sends a form; the answer spoke of dictionaries and objects."""
    headers = {"content-type": content_type} if content_type else {}
    answer = await client.post("/v1/score", content=json.dumps(BODY), headers=headers)
    assert answer.status_code == 422
    message = answer.json()["error"]["message"]
    assert "send Content-Type: application/json" in message
    assert len(message) < 300


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"],
)
async def test_json_by_any_of_its_names_is_read(
    client: httpx.AsyncClient, content_type: str
) -> None:
    headers = {"content-type": content_type}
    good = await client.post("/v1/score", content=json.dumps(BODY), headers=headers)
    assert good.status_code == 200
    bad = await client.post("/v1/score", content="[]", headers=headers)
    assert bad.status_code == 422
    assert "Content-Type" not in bad.json()["error"]["message"]


async def test_long_names_are_cut_when_they_are_told_back(client: httpx.AsyncClient) -> None:
    """An unknown key of 1 MB gave an answer of 2 MB."""
    for body in (
        {**BODY, "k" * 1_000_000: 1},
        {**BODY, "model": "m" * 1_000_000},
        {**BODY, "direction": {"d" * 1_000_000: 1.0}},
        {**BODY, "weights": {"w" * 1_000_000: -1.0}},
    ):
        answer = await client.post("/v1/score", json=body)
        assert answer.status_code in (404, 422)
        assert len(answer.content) < 2000
    assert len((await client.get("/" + "p" * 50_000)).content) < 500
