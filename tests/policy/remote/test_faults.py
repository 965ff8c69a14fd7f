"""A network that breaks, servers that answer nonsense, deadlines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest

from steerward.policy.generation import Piece
from steerward.policy.local.policy import LocalPolicy
from steerward.policy.remote import RemotePolicy
from steerward.protocol.errors import (
    DeadlineExceeded,
    EngineFailure,
    NotReady,
    Overloaded,
    SteerwardError,
)
from tests.policy.conftest import ask, ask_all, texts, until
from tests.policy.remote.peers import (
    LONG,
    MEDIUM,
    SHORT,
    Answering,
    Fault,
    Peer,
    half,
    held,
    instead,
    nothing,
    peer_of,
    read_into,
    remote_of,
)

pytestmark = pytest.mark.anyio


BUSY = '{"error": {"message": "full", "code": "overloaded", "type": "rate_limit_error"}}'


@pytest.mark.parametrize(
    ("fault", "expected", "message"),
    [
        (Fault(4, nothing, "breaks"), NotReady, "connection to .* failed"),
        (Fault(4, half, "breaks"), NotReady, "connection to .* failed"),
        (Fault(4, nothing, "ends"), EngineFailure, "1 of 1 completions unfinished"),
        (Fault(4, half, "ends"), EngineFailure, "1 of 1 completions unfinished"),
        (Fault(4, half, "goes on"), EngineFailure, "not JSON"),
        (Fault(4, instead('{"choices": ['), "goes on"), EngineFailure, "not JSON"),
        (Fault(4, instead("[]"), "goes on"), EngineFailure, "an event is of type list"),
        (Fault(4, instead('{"choices": "\xff"}'), "goes on"), EngineFailure, "not UTF-8"),
        (Fault(4, instead(BUSY), "ends"), Overloaded, "full"),
        (Fault(4, instead('{"error": "out of memory"}'), "ends"), EngineFailure, "out of memory"),
    ],
    ids=[
        "connection dropped",
        "dropped within an event",
        "ended too early",
        "ended within an event",
        "half an event",
        "malformed JSON",
        "another shape",
        "not UTF-8",
        "typed error",
        "foreign error",
    ],
)
async def test_broken_stream_ends_in_a_typed_error_and_others_go_on(
    peer: Peer, remote: RemotePolicy, fault: Fault, expected: type[SteerwardError], message: str
) -> None:
    (whole,) = await texts(peer.policy, ask("Hello", **MEDIUM))
    other_request = ask_all(["Tell me"] * 2, **{**MEDIUM, "temperature": 1.0, "seed": 4})
    expected_of_others = await texts(peer.policy, other_request)
    with held(peer.policy) as is_held:
        other = asyncio.create_task(texts(remote, other_request))
        await until(is_held.is_set)
    peer.network.faults.append(fault)
    generation = await remote.begin(ask("Hello", **MEDIUM))
    peer.network.may_fail.set()
    found: list[Piece] = []
    with pytest.raises(expected, match=message):
        await read_into(found, generation)
    await generation.aclose()
    assert found
    assert whole.startswith("".join(piece.text for piece in found))
    assert all(piece.finish_reason is None for piece in found)
    assert await other == expected_of_others
    assert await texts(remote, ask("Hello", **MEDIUM)) == [whole]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault(0, nothing, "breaks"), NotReady),
        (Fault(0, nothing, "ends"), EngineFailure),
        (Fault(0, half, "breaks"), NotReady),
        (Fault(0, instead(BUSY), "ends"), Overloaded),
    ],
    ids=["dropped", "empty", "half", "error"],
)
async def test_stream_that_breaks_at_once_is_refused_before_it_begins(
    peer: Peer, remote: RemotePolicy, fault: Fault, expected: type[SteerwardError]
) -> None:
    peer.network.faults.append(fault)
    peer.network.may_fail.set()
    with pytest.raises(expected):
        await remote.begin(ask("Hello", **LONG))
    assert remote.card().running == 0
    assert await texts(remote, ask("Hello", **SHORT))


async def test_one_broken_stream_of_several_ends_them_all(peer: Peer, remote: RemotePolicy) -> None:
    peer.network.faults.append(Fault(3, nothing, "breaks"))
    generation = await remote.begin(ask_all(["Hello", "Tell me", "Go on"], **LONG))
    peer.network.may_fail.set()
    with pytest.raises(NotReady, match="connection"):
        await read_into([], generation)
    # Nobody has closed it yet.
    await until(lambda: peer.is_idle)
    assert remote.card().running == 0
    await generation.aclose()


def unreachable(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectTimeout("no route", request=request)


def page(status: int, **headers: str) -> Callable[[httpx.Request], httpx.Response]:
    return lambda _: httpx.Response(status, html="<h1>Oh</h1>" * 20_000, headers=headers)


@pytest.mark.parametrize(
    ("answer", "expected", "message"),
    [
        (unreachable, NotReady, "ConnectTimeout"),
        (page(200), EngineFailure, "'text/html.*' and not with a stream of events"),
        (page(502), NotReady, "status 502"),
        (page(500), EngineFailure, "status 500"),
        (page(429, **{"retry-after": "7"}), Overloaded, "status 429"),
    ],
    ids=["unreachable", "page", "bad gateway", "failure", "rate limit"],
)
async def test_answer_of_something_else_is_a_typed_error(
    peer: Peer,
    answer: Callable[[httpx.Request], httpx.Response],
    expected: type[SteerwardError],
    message: str,
) -> None:
    async with remote_of(peer.url, transport=Answering(answer)) as remote:
        with pytest.raises(expected, match=message) as caught:
            await remote.begin(ask())
    assert len(str(caught.value)) < 500
    if expected is Overloaded:
        assert caught.value.retry_after_s == 7.0


async def test_deadline_ends_the_stream_and_what_the_other_server_draws(
    peer: Peer, remote: RemotePolicy
) -> None:
    with held(peer.policy, after=3) as is_held:
        generation = await remote.begin(ask("Hello", timeout_s=0.5, **LONG))
        await until(is_held.is_set)
        found: list[Piece] = []
        with pytest.raises(DeadlineExceeded, match="allow more time"):
            await read_into(found, generation)
    assert found
    await until(lambda: peer.is_idle)
    assert remote.card().running == 0


async def test_deadline_before_the_first_event_is_an_error_of_begin(
    peer: Peer, remote: RemotePolicy
) -> None:
    with held(peer.policy):
        with pytest.raises(DeadlineExceeded, match="not done in time"):
            await remote.begin(ask("Hello", timeout_s=0.2, **LONG))
        assert remote.card().running == 0


async def test_deadline_holds_where_nobody_reads(peer: Peer, remote: RemotePolicy) -> None:
    with held(peer.policy, after=3):
        generation = await remote.begin(ask("Hello", timeout_s=0.5, **LONG))
        await until(lambda: remote.card().running == 0)
    with pytest.raises(DeadlineExceeded):
        await read_into([], generation)


async def test_deadline_of_the_other_server_is_one_here(local: LocalPolicy) -> None:
    async with peer_of(local, generation_timeout_s=0.5) as peer, remote_of(peer.url) as remote:
        with held(local, after=3):
            generation = await remote.begin(ask("Hello", **LONG))
            with pytest.raises(DeadlineExceeded, match="not done after 0.[45]"):
                await read_into([], generation)


async def test_other_server_that_stops_ends_its_streams_with_not_ready(
    peer: Peer, remote: RemotePolicy
) -> None:
    with held(peer.policy, after=3) as is_held:
        generation = await remote.begin(ask("Hello", **LONG))
        await until(is_held.is_set)
        closing = asyncio.create_task(asyncio.to_thread(peer.policy.close))
        await until(lambda: not peer.policy.is_ready)
    with pytest.raises(NotReady, match="has stopped"):
        await read_into([], generation)
    await closing
