"""Places are free when somebody goes, and bounded when many come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest

from steerward.policy.generation import Generation, Piece
from steerward.policy.remote import RemotePolicy
from steerward.protocol.errors import (
    DeadlineExceeded,
    NotReady,
    Overloaded,
)
from tests.policy.conftest import ask, ask_all, texts, until
from tests.policy.remote.peers import (
    LONG,
    SHORT,
    Answering,
    Peer,
    drawn,
    free_port,
    held,
    read_into,
    remote_of,
)

pytestmark = pytest.mark.anyio


async def closed(generation: Generation, reading: asyncio.Task[Any]) -> None:
    """A reader in another task comes to its end."""
    await generation.aclose()
    await asyncio.wait_for(reading, 5.0)


async def cancelled(generation: Generation, reading: asyncio.Task[Any]) -> None:
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading
    await generation.aclose()


@pytest.mark.parametrize("close", [closed, cancelled])
@pytest.mark.parametrize("prompts", [["Hello"] * 8, [f"{i}" for i in range(8)]], ids=["one", "8"])
async def test_closing_frees_the_places_there_and_here_at_once(
    peer: Peer,
    remote: RemotePolicy,
    prompts: list[str],
    close: Callable[[Generation, asyncio.Task[Any]], Awaitable[None]],
) -> None:
    generation = await remote.begin(ask_all(prompts, **LONG))
    with held(peer.policy) as is_held:
        reading = asyncio.create_task(read_into([], generation))
        await until(is_held.is_set)
        assert peer.policy.card().running > 0
        await close(generation, reading)
        assert remote.card().running == 0
        await generation.aclose()
    await until(lambda: peer.is_idle)
    # Over HTTP too: it is what whoever runs the other server sees.
    async with httpx.AsyncClient(base_url=peer.url) as client:
        (card,) = (await client.get("/v1/models")).json()["data"]
    assert (card["running"], card["waiting"]) == (0, 0)


async def test_caller_that_goes_before_the_first_event_leaves_nothing(
    peer: Peer, remote: RemotePolicy
) -> None:
    with held(peer.policy) as is_held:
        beginning = asyncio.create_task(remote.begin(ask_all(["Hello"] * 4, **LONG)))
        await until(is_held.is_set)
        assert remote.card().running == 4
        beginning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await beginning
        assert remote.card().running == 0
    await until(lambda: peer.is_idle)


async def test_slow_reader_holds_up_nobody_and_loses_nothing(
    peer: Peer, remote: RemotePolicy
) -> None:
    """More pieces than are kept unread wait at the other server, or in the network."""
    request = ask_all(["Hello"] * 4, **{**LONG, "top_logprobs": 5})
    expected = await drawn(peer.policy, request)
    slow = await remote.begin(request)
    for i in range(5):
        assert await texts(remote, ask(f"{i}", **SHORT))
    await asyncio.sleep(0.3)
    found: list[Piece] = []
    await read_into(found, slow)
    for index, text in enumerate(expected.texts):
        assert "".join(piece.text for piece in found if piece.index == index) == text
    assert sum(piece.num_tokens for piece in found) == expected.num_tokens > 256


async def test_completions_over_the_places_wait_here_and_too_many_are_refused(
    peer: Peer,
) -> None:
    async with remote_of(peer.url, max_running=2, max_waiting=3) as remote:
        with held(peer.policy, after=3) as is_held:
            first = await remote.begin(ask_all(["Hello"] * 2, **LONG))
            await until(is_held.is_set)
            behind = asyncio.create_task(texts(remote, ask_all(["Tell me"] * 2, **SHORT)))
            await until(lambda: remote.card().waiting == 2)
            with pytest.raises(Overloaded, match="2 completions wait already.*limit 3"):
                await remote.begin(ask_all(["Hello"] * 2, **SHORT))
            with pytest.raises(DeadlineExceeded, match="found no place in time"):
                await remote.begin(ask("Hello", timeout_s=0.05, **SHORT))
            assert peer.policy.card().running == 2
            await first.aclose()
        assert len(await asyncio.wait_for(behind, 5.0)) == 2


async def test_drain_finishes_what_runs_and_takes_no_more(peer: Peer, remote: RemotePolicy) -> None:
    with held(peer.policy, after=3):
        running = await remote.begin(ask("Hello", **LONG))
        remote.begin_drain()
        assert (remote.is_ready, remote.reason) == (False, "the server is shutting down")
        with pytest.raises(NotReady, match="shutting down"):
            await remote.begin(ask())
    found: list[Piece] = []
    await read_into(found, running)
    assert found[-1].finish_reason is not None


async def close_in_a_thread(policy: RemotePolicy) -> None:
    await asyncio.to_thread(policy.close)


async def close_on_the_loop(policy: RemotePolicy) -> None:
    policy.close()


@pytest.mark.parametrize("close", [close_in_a_thread, close_on_the_loop])
async def test_closing_the_policy_ends_what_runs_and_what_waits_with_not_ready(
    peer: Peer, close: Callable[[RemotePolicy], Awaitable[None]]
) -> None:
    async with remote_of(peer.url, max_running=1) as remote:
        with held(peer.policy, after=3) as is_held:
            running = asyncio.create_task(drawn(remote, ask("Hello", **LONG)))
            await until(is_held.is_set)
            waiting = asyncio.create_task(drawn(remote, ask("Hello", **LONG)))
            await until(lambda: remote.card().waiting == 1)
            await close(remote)
            for task in (running, waiting):
                with pytest.raises(NotReady, match="has stopped"):
                    await asyncio.wait_for(task, 5.0)
        with pytest.raises(NotReady, match="has stopped"):
            await remote.begin(ask())
    await until(lambda: peer.is_idle)
    remote.close()


async def test_policy_that_was_never_started_can_be_closed() -> None:
    policy = RemotePolicy(f"http://127.0.0.1:{free_port()}", name="far")
    assert not policy.is_ready
    assert "not asked for its models yet" in policy.reason
    policy.close()
    with pytest.raises(NotReady, match="has stopped"):
        await policy.wait_until_ready()


async def test_password_of_the_address_is_sent_and_never_told(peer: Peer) -> None:
    address = peer.url.replace("http://", "http://me:hush@")
    seen: list[str] = []

    def look(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        raise httpx.ReadError("gone", request=request)

    async with remote_of(address, transport=Answering(look)) as remote:
        with pytest.raises(NotReady) as caught:
            await remote.begin(ask())
        assert "hush" not in str(caught.value) + str(remote.card())
    assert seen == ["Basic bWU6aHVzaA=="]
