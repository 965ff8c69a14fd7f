"""Thousands of texts, halves of characters, and errors in the caller's own words."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

import steerward
from tests.golden_cases import GOLDEN_TOLERANCE
from tests.server.compat.asking import joined, native, post
from tests.server.compat.families import conversation, render
from tests.server.conftest import StartApp, client_of, listening, until

pytestmark = pytest.mark.anyio


async def test_more_texts_than_a_request_may_have_are_all_scored(start_app: StartApp) -> None:
    """Older trainers send a whole rollout; fewer scores than texts would be given to others."""
    app = await start_app(max_items=4, max_candidates=3)
    async with client_of(app) as client:
        answer = await post(client, "/get_reward", {"query": joined() * 4})
        expected = [candidate["score"] for candidate in await native(client)] * 4
    assert answer.json()["rewards"] == pytest.approx(expected, abs=GOLDEN_TOLERANCE)
    assert float(answer.headers["x-total-ms"]) > 0


async def test_text_that_is_too_long_is_named_as_the_caller_calls_it(
    start_app: StartApp,
) -> None:
    app = await start_app(max_input_tokens=60, max_items=2)
    texts = [*joined(), render("chatml", conversation("p", "word " * 300))]
    async with client_of(app) as client:
        for path, key in (("/get_reward", "query"), ("/v1/score/evaluation", "messages")):
            answer = await post(client, path, {key: texts})
            error = answer.json()["error"]
            assert answer.status_code == 413
            assert error["param"] == f"{key}[3]"
            assert error["message"].startswith(f"{key}[3]: ")
            assert "items" not in error["message"]


async def test_conversation_that_cannot_be_scored_is_named_as_the_caller_calls_it(
    client: httpx.AsyncClient,
) -> None:
    for turns, words in (
        (conversation("only asked"), "end with a user turn"),
        (conversation("", "answered"), "turn before the candidate is empty"),
    ):
        texts = [joined()[0], render("chatml", turns)]
        answer = await post(client, "/classify", {"input": texts})
        assert answer.status_code == 422
        assert answer.json()["error"]["param"] == "input[1]"
        assert words in answer.json()["error"]["message"]


async def test_half_a_character_is_replaced_and_counted(client: httpx.AsyncClient) -> None:
    """Policies write bytes; JSON escapes carry a cut character as a lone surrogate."""
    whole, cut = (
        render("chatml", conversation("Draw.", f"A rainbow: {end}")) for end in ("\ufffd", "\ud83c")
    )
    body = json.dumps({"query": [cut, whole]}).encode("ascii")
    assert b"\\ud83c" in body
    answer = await post(client, "/get_reward", body)
    assert answer.status_code == 200
    first, second = answer.json()["rewards"]
    assert first == pytest.approx(second, abs=GOLDEN_TOLERANCE)
    assert "steerward_replaced_surrogates_total 1.0" in (await client.get("/metrics")).text


async def test_whole_character_in_two_escapes_is_itself(client: httpx.AsyncClient) -> None:
    texts = [render("chatml", conversation("Draw.", end)) for end in ("🌈", "\ufffd\ufffd")]
    first, second = (await post(client, "/get_reward", {"query": texts})).json()["rewards"]
    assert first != pytest.approx(second, abs=GOLDEN_TOLERANCE)
    assert "replaced_surrogates_total 1" not in (await client.get("/metrics")).text


async def test_samples_one_by_one_have_the_scores_of_a_batch(client: httpx.AsyncClient) -> None:
    """Newer trainers post each sample by itself, hundreds at once."""
    bodies: list[Any] = [{"query": [text]} for text in joined() * 10]
    answers = await asyncio.gather(*(post(client, "/get_reward", body) for body in bodies))
    batch = (await post(client, "/get_reward", {"query": joined() * 10})).json()
    singles = [answer.json()["rewards"][0] for answer in answers]
    assert singles == pytest.approx(batch["rewards"], abs=GOLDEN_TOLERANCE)
    assert {tuple(a.json()["extra_logs"]) for a in answers} == {tuple(batch["extra_logs"])}


async def test_caller_that_goes_away_ends_its_work(start_app: StartApp) -> None:
    app = await start_app(max_batch_tokens=64, max_items=8)
    engine = app.state.steerward.engines["armorm"]
    text = render("chatml", conversation("p", "word " * 300))
    async with (
        listening(app) as url,
        httpx.AsyncClient(base_url=url) as client,
        client_of(app) as observer,
    ):
        asking = asyncio.create_task(post(client, "/get_reward", {"query": [text] * 64}))
        await until(lambda: engine.queued_tokens)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await client.aclose()
        await until(lambda: not engine.queued_tokens)
        # The line of a request that nobody waits for is written when it has ended.
        line = 'steerward_requests_total{route="/get_reward",status="499"} 1.0'
        async with asyncio.timeout(10.0):
            while line not in (await observer.get("/metrics")).text:
                await asyncio.sleep(0.01)


async def test_server_that_drains_says_so_by_status(start_app: StartApp) -> None:
    app = await start_app()
    app.state.steerward.begin_drain()
    async with client_of(app) as client:
        for path, key in (("/get_reward", "query"), ("/classify", "input")):
            answer = await post(client, path, {key: joined()})
            assert answer.status_code == 503
            assert answer.headers["retry-after"]


async def test_pocket_scores_texts_of_its_own_policy(start_app: StartApp) -> None:
    app = await start_app(str(Path(steerward.__file__).parent / "models" / "pocket"))
    async with client_of(app) as client:
        names = (await client.get("/v1/models")).json()["data"][0]["objectives"]
        url = f"/get_reward?direction={names[0]['name']}:0.97;{names[1]['name']}:-0.26"
        direction = {names[0]["name"]: 0.97, names[1]["name"]: -0.26}
        for family in ("pocket-policy", "pocket", "chatml"):
            answer = await post(client, url, {"query": joined(family)})
            expected = await native(client, direction=direction)
            wanted = [candidate["direction_score"] for candidate in expected]
            assert answer.json()["rewards"] == pytest.approx(wanted, abs=1e-4)
