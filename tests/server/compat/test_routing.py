"""Keys, overload and the log on routes whose callers send no headers and split their URL."""

from __future__ import annotations

import asyncio
import logging

import pytest

from steerward.server.compat import routers
from tests.server.compat.asking import joined, post
from tests.server.compat.families import conversation, render
from tests.server.conftest import StartApp, client_of

pytestmark = pytest.mark.anyio

PATHS = [route.path for router in routers for route in router.routes if hasattr(route, "path")]  # pyright: ignore[reportAttributeAccessIssue]


async def test_key_is_taken_from_the_header_or_from_the_url(start_app: StartApp) -> None:
    app = await start_app(api_key=["k", "a+b/ü"])
    async with client_of(app) as client:
        for query, header, status in (
            ("", None, 401),
            ("?key=", None, 401),
            ("?key=wrong", None, 401),
            ("?key=k&model=armorm", None, 200),
            ("?key=a%2Bb/%C3%BC", None, 200),
            ("", "Bearer k", 200),
            ("", "Bearer EMPTY", 401),
            ("?key=k", "Bearer EMPTY", 200),
            ("?key=wrong", "Bearer k", 200),
        ):
            headers = {"authorization": header} if header else {}
            body = {"query": joined()}
            answer = await client.post(f"/get_reward{query}", json=body, headers=headers)
            assert answer.status_code == status, (query, header, answer.text)
    assert "?key=KEY" in (await _refused(start_app))


async def _refused(start_app: StartApp) -> str:
    async with client_of(await start_app(api_key=["k"])) as client:
        return (await client.post("/classify", json={})).json()["error"]["message"]


async def test_every_path_needs_the_key_before_the_body_is_read(start_app: StartApp) -> None:
    async with client_of(await start_app(api_key=["k"])) as client:
        for path in PATHS:
            answer = await client.post(path, content=b"not JSON")
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"] == "Bearer"


def test_every_protocol_is_found_under_all_its_paths() -> None:
    for path in ("/get_reward", "/v1/score/evaluation", "/classify", "/v1/embeddings"):
        assert {path, f"/p/{{profile}}{path}"} < set(PATHS)
        assert any(p.startswith("/compat/") and p.endswith(path) for p in PATHS)
    assert len(PATHS) == len(set(PATHS))


async def test_log_and_metrics_show_neither_key_nor_profile(
    start_app: StartApp, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "steerward")
    app = await start_app(api_key=["secret-key"], profiles={"hidden-name": {"objective_0": 1.0}})
    async with client_of(app) as client:
        url = "/p/hidden-name/get_reward?key=secret-key"
        assert (await post(client, url, {"query": joined()})).status_code == 200
        assert (await post(client, f"{url}&x=1", {"query": joined()})).status_code == 422
        metrics = (
            await client.get("/metrics", headers={"authorization": "Bearer secret-key"})
        ).text
    for text in (caplog.text, metrics):
        assert "/p/{profile}/get_reward" in text
        assert "secret-key" not in text
        assert "hidden-name" not in text


async def test_overload_is_503_with_retry_after(start_app: StartApp) -> None:
    """Callers of these routes take 429 for final, or try again at once; 5xx they wait for."""
    app = await start_app(max_queued_tokens=20, max_batch_tokens=64)
    text = render("chatml", conversation("p", "word " * 300))
    async with client_of(app) as client:
        answers = await asyncio.gather(
            *(post(client, "/get_reward", {"query": [text]}) for _ in range(16))
        )
        metrics = (await client.get("/metrics")).text
    assert {answer.status_code for answer in answers} == {200, 503}
    refused = [answer for answer in answers if answer.status_code == 503]
    for answer in refused:
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json()["error"]["code"] == "overloaded"
    assert f'steerward_refusals_total{{code="overloaded"}} {len(refused)}.0' in metrics
