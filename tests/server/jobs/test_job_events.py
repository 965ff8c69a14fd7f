"""Events of a job: as a list, and as a stream that can be taken up again and ends with the job."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from steerward.server.job_events import JobFollower
from tests.server.conftest import listening, until
from tests.server.jobs.serving import JOBS, Serving, create, error_of, run_job

pytestmark = pytest.mark.anyio


@pytest.fixture
async def job_id(client: httpx.AsyncClient, prompts: str) -> str:
    return (await create(client, prompts))["id"]


@pytest.fixture
async def remote(served: Serving) -> AsyncIterator[httpx.AsyncClient]:
    """A client over a real port: in process an answer comes only when it is whole."""
    async with listening(served.app) as url, httpx.AsyncClient(base_url=url, timeout=30.0) as http:
        yield http


def events_of(text: str) -> list[dict[str, Any]]:
    """Return server-sent events, without comments."""
    found: list[dict[str, Any]] = []
    for block in text.strip().split("\n\n"):
        if not block.startswith(":"):
            fields = dict(line.split(": ", 1) for line in block.split("\n"))
            found.append({**fields, "data": json.loads(fields["data"])})
    return found


def add(served: Serving, job_id: str, *messages: str) -> list[str]:
    """Add events, and return their ids."""
    return [served.store.add_event(job_id, message).id for message in messages]


def finish(served: Serving, job_id: str) -> None:
    record, owner = run_job(served.store)
    assert record.id == job_id
    served.store.finish(job_id, owner, status="succeeded", fine_tuned_model="better")


async def test_list_is_newest_first_and_in_pages(
    client: httpx.AsyncClient, served: Serving, job_id: str
) -> None:
    add(served, job_id, "one", "two", "three")
    path = f"{JOBS}/{job_id}/events"
    first = (await client.get(path, params={"limit": 2})).json()
    assert ([event["message"] for event in first["data"]], first["has_more"]) == (
        ["three", "two"], True,
    )  # fmt: skip
    rest = (await client.get(path, params={"after": first["data"][-1]["id"]})).json()
    assert (rest["data"][0]["message"], rest["has_more"]) == ("one", False)


async def test_stream_of_a_job_that_has_ended_has_all_events_and_the_job(
    client: httpx.AsyncClient, served: Serving, job_id: str
) -> None:
    ids = add(served, job_id, *map(str, range(250)))
    served.store.add_event(job_id, "loss", type="metrics", data={"loss": 0.5, "step": 1})
    finish(served, job_id)
    answer = await client.get(f"{JOBS}/{job_id}/events", params={"stream": True})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    *found, metrics, done = events_of(answer.text)
    assert [event["id"] for event in found] == ids
    assert {event["event"] for event in found} == {"message"}
    assert [event["data"]["message"] for event in found] == [str(n) for n in range(250)]
    assert (metrics["event"], metrics["data"]["data"]) == ("metrics", {"loss": 0.5, "step": 1})
    assert done["event"] == "done"
    assert "id" not in done
    assert (done["data"]["status"], done["data"]["fine_tuned_model"]) == ("succeeded", "better")
    assert served.desk.followers.num_taken == 0


async def test_stream_goes_on_after_the_last_event_that_is_known(
    client: httpx.AsyncClient, served: Serving, job_id: str
) -> None:
    ids = add(served, job_id, "one", "two", "three")
    finish(served, job_id)
    path = f"{JOBS}/{job_id}/events?stream=true"
    resumed = await client.get(path, headers={"last-event-id": ids[1]})
    later = await client.get(f"{path}&after={ids[0]}")
    # A browser that comes back sends the address as before, and the header.
    both = await client.get(f"{path}&after={ids[0]}", headers={"last-event-id": ids[2]})
    assert [[event.get("id") for event in events_of(a.text)] for a in (resumed, later, both)] == [
        [ids[2], None], [*ids[1:], None], [None],
    ]  # fmt: skip


async def test_events_come_as_they_happen_and_the_last_after_the_end(
    remote: httpx.AsyncClient, served: Serving, job_id: str
) -> None:
    """The runner writes its last event when the job has its last status."""
    path = f"{JOBS}/{job_id}/events?stream=true"
    seen: list[str] = []
    async with asyncio.timeout(30.0), remote.stream("GET", path) as answer:
        blocks = aiter(answer.aiter_text())
        await anext(blocks)
        add(served, job_id, "one")
        seen.append(await anext(blocks))
        finish(served, job_id)
        await asyncio.sleep(0.05)
        add(served, job_id, "the end")
        seen += [block async for block in blocks]
    kinds = [(event["event"], event["data"].get("message")) for event in events_of("".join(seen))]
    assert kinds == [("message", "one"), ("message", "the end"), ("done", None)]


async def test_client_that_goes_leaves_its_place(
    remote: httpx.AsyncClient, served: Serving, job_id: str
) -> None:
    async with remote.stream("GET", f"{JOBS}/{job_id}/events?stream=true") as answer:
        await anext(aiter(answer.aiter_text()))
        assert served.desk.followers.num_taken == 1
    await until(lambda: served.desk.followers.num_taken == 0)


async def test_server_that_ends_lets_streams_go(
    remote: httpx.AsyncClient, served: Serving, job_id: str
) -> None:
    async with asyncio.timeout(30.0):
        async with remote.stream("GET", f"{JOBS}/{job_id}/events?stream=true") as answer:
            blocks = aiter(answer.aiter_text())
            await anext(blocks)
            served.desk.begin_drain()
            assert [block async for block in blocks] == []


async def test_too_many_streams_are_refused(
    client: httpx.AsyncClient, served: Serving, job_id: str
) -> None:
    with ExitStack() as places:
        for _ in range(64):
            places.enter_context(served.desk.followers.seat())
        answer = await client.get(f"{JOBS}/{job_id}/events?stream=true")
        assert error_of(answer)[:2] == (429, "overloaded")
        assert answer.headers["retry-after"] == "10"
        assert (await client.get(f"{JOBS}/{job_id}/events")).status_code == 200


async def test_silence_is_broken_by_comments(served: Serving, job_id: str) -> None:
    follower = JobFollower(served.desk, job_id, look_every_s=0.01, keep_alive_s=0.02)
    events = await follower.begin(after=None)
    async with asyncio.timeout(30.0):
        found = [await anext(events) for _ in range(4)]
    await events.aclose()
    assert all(block.startswith(b":") and block.endswith(b"\n\n") for block in found)


async def test_stream_whose_database_goes_ends_with_an_error(
    served: Serving, job_id: str, tmp_path: Any
) -> None:
    events = await JobFollower(served.desk, job_id, look_every_s=0.01).begin(after=None)
    await anext(events)
    served.store._engine.dispose()
    for path in tmp_path.glob("state.sqlite*"):
        path.unlink()
    (tmp_path / "state.sqlite").mkdir()
    async with asyncio.timeout(30.0):
        (last,) = [block async for block in events]
    assert last.startswith(b"event: error\ndata: ")
    assert b'"not_ready"' in last


@pytest.mark.parametrize(
    ("query", "headers", "param"),
    [
        ("limit=0", {}, "query.limit"),
        ("stream=true&limit=5", {}, "limit"),
        ("stream=perhaps", {}, "query.stream"),
        ("streaming=true", {}, "query.streaming"),
        ("stream=true", {"last-event-id": "a b"}, "header.last-event-id"),
    ],
)
async def test_question_that_is_wrong_is_refused_with_its_place(
    client: httpx.AsyncClient, job_id: str, query: str, headers: dict[str, str], param: str
) -> None:
    answer = await client.get(f"{JOBS}/{job_id}/events?{query}", headers=headers)
    assert error_of(answer) == (422, "invalid_request", param)


async def test_event_that_is_not_there_is_404(client: httpx.AsyncClient, job_id: str) -> None:
    for query in ("", "&stream=true"):
        answer = await client.get(f"{JOBS}/{job_id}/events?after=unknown{query}")
        assert error_of(answer)[:2] == (404, "not_found")
