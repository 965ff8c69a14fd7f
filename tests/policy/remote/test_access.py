"""Keys, names and servers that are not there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from steerward.policy.local.checkpoint import load_policy
from steerward.policy.local.policy import LocalPolicy
from steerward.policy.remote import RemotePolicy
from steerward.protocol.errors import (
    InputTooLong,
    InvalidRequest,
    NotFound,
    NotReady,
    Overloaded,
)
from tests.policy.conftest import ask, ask_all, make_policy, started, texts, until
from tests.policy.remote.peers import (
    SHORT,
    Peer,
    app_of,
    client_of,
    drawn,
    free_port,
    held,
    listening,
    peer_of,
    remote_of,
)

pytestmark = pytest.mark.anyio


async def test_right_key_is_let_in(local: LocalPolicy) -> None:
    async with (
        peer_of(local, api_key=["ключ", "secret"]) as peer,
        remote_of(f"{peer.url}/v1/", api_key="ключ") as remote,
    ):
        assert (await drawn(remote, ask("Hello", **SHORT))).num_tokens > 0


@pytest.mark.parametrize("key", [None, "guessed"])
async def test_wrong_key_leaves_the_policy_not_ready_and_is_told(
    local: LocalPolicy, key: str | None
) -> None:
    async with peer_of(local, api_key=["secret"]) as peer:
        policy = RemotePolicy(peer.url, name="far", api_key=key)
        policy.start()
        await until(lambda: "refused the API key of this server" in policy.reason)
        assert not policy.is_ready
        assert "guessed" not in policy.reason
        with pytest.raises(NotReady, match="refused the API key"):
            await policy.begin(ask())
        await asyncio.to_thread(policy.close)


async def test_key_that_is_no_longer_taken_is_no_fault_of_the_caller(local: LocalPolicy) -> None:
    port = free_port()
    async with peer_of(local, port=port, api_key=["old"]) as peer:
        policy = RemotePolicy(peer.url, name="far", api_key="old")
        policy.start()
        await policy.wait_until_ready()
    async with peer_of(local, port=port, api_key=["new"]):
        with pytest.raises(NotReady, match="refused the API key of this server"):
            await policy.begin(ask())
    assert policy.card().running == 0
    await asyncio.to_thread(policy.close)


async def test_unknown_model_is_not_found(peer: Peer) -> None:
    """Servers may serve what they do not list, so this is known only when it is asked for."""
    async with remote_of(peer.url, model="absent") as remote:
        with pytest.raises(NotFound, match="absent"):
            await remote.begin(ask())


async def test_one_of_several_models_has_to_be_named(
    local: LocalPolicy, policy_folder: Path
) -> None:
    other = make_policy(load_policy(str(policy_folder), device="cpu"), name="other")
    await started(other)
    async with listening(app_of(local, other)) as url:
        policy = RemotePolicy(url, name="far")
        policy.start()
        await until(lambda: "name the one to use" in policy.reason)
        assert "2 policies: tiny, other" in policy.reason
        await asyncio.to_thread(policy.close)
        with pytest.raises(NotReady, match="has stopped"):
            await policy.wait_until_ready()
        async with remote_of(url, model="other") as remote:
            assert await texts(remote, ask("Hello", **SHORT))
    other.close()


async def test_refusals_of_the_other_server_are_errors_of_the_same_kind(
    peer: Peer, remote: RemotePolicy
) -> None:
    with pytest.raises(InputTooLong, match="reads 256"):
        await remote.begin(ask("word " * 300, max_tokens=1))
    with pytest.raises(InvalidRequest, match="temperature"):
        await remote.begin(ask("Hello", temperature=3.0))
    with held(peer.policy) as is_held:
        running = asyncio.create_task(drawn(remote, ask_all(["Hello"] * 64, **SHORT)))
        await until(is_held.is_set)
        with pytest.raises(Overloaded, match="wait already") as caught:
            await remote.begin(ask_all(["Hello"] * 64, **SHORT))
        assert caught.value.retry_after_s
    assert (await running).num_tokens > 0


async def test_dead_server_is_told_and_found_again_when_it_lives(local: LocalPolicy) -> None:
    port = free_port()
    remote = RemotePolicy(f"http://127.0.0.1:{port}", name="far")
    remote.start()
    await until(lambda: "is the server running?" in remote.reason)
    async with client_of(app_of(remote)) as client:
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert f"127.0.0.1:{port}" in answer.json()["error"]["message"]
        with pytest.raises(NotReady, match="is the server running") as caught:
            await remote.begin(ask())
        assert caught.value.retry_after_s
        async with peer_of(local, port=port):
            await asyncio.wait_for(remote.wait_until_ready(), 10.0)
            assert (await client.get("/readyz")).status_code == 200
            assert await texts(remote, ask("Hello", **SHORT))
    await asyncio.to_thread(remote.close)


async def test_server_that_dies_later_is_an_error_until_it_is_back(local: LocalPolicy) -> None:
    port = free_port()
    async with peer_of(local, port=port) as peer:
        remote = RemotePolicy(peer.url, name="far")
        remote.start()
        await remote.wait_until_ready()
        assert await texts(remote, ask("Hello", **SHORT))
    for _ in range(2):
        with pytest.raises(NotReady, match="is the server running") as caught:
            await remote.begin(ask())
        assert caught.value.retry_after_s
    assert remote.card().running == 0
    async with peer_of(local, port=port):
        assert await texts(remote, ask("Hello", **SHORT))
    await asyncio.to_thread(remote.close)
