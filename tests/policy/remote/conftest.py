"""A local policy, a server that serves it, and a policy that asks that server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from steerward.policy.local.checkpoint import LocalCheckpoint
from steerward.policy.local.policy import LocalPolicy
from steerward.policy.remote import RemotePolicy
from tests.policies import ARMORM_RULE, save_policy
from tests.policy.conftest import make_policy, started, until
from tests.policy.remote.peers import (
    Peer,
    peer_of,
    remote_of,
)


@pytest.fixture(scope="module")
def policy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("policy") / "tiny", rule=ARMORM_RULE)


@pytest.fixture
async def local(clean_environment: None, checkpoint: LocalCheckpoint) -> AsyncIterator[LocalPolicy]:
    policy = await started(make_policy(checkpoint))
    yield policy
    policy.close()


@pytest.fixture
async def peer(local: LocalPolicy) -> AsyncIterator[Peer]:
    async with peer_of(local) as found:
        yield found


@pytest.fixture
async def remote(peer: Peer) -> AsyncIterator[RemotePolicy]:
    async with remote_of(peer.url) as policy:
        yield policy
        await until(lambda: peer.is_idle)
