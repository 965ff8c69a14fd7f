"""The tiny policy beside the reward model that ships."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from steerward.config import EngineConfig
from steerward.engine.engine import Engine
from steerward.metrics import Metrics
from steerward.models.checkpoint import load_reward_model
from steerward.models.reward_model import RewardModel
from steerward.policy.local.checkpoint import LocalCheckpoint
from steerward.policy.steering import (
    SteeredPolicy,
)
from steerward.server.rewards import EngineRewards
from tests.policy.conftest import make_policy, started
from tests.policy.steering.models import (
    Models,
)


@pytest.fixture(scope="module")
def pocket() -> RewardModel:
    return load_reward_model("pocket", device="cpu")


@pytest.fixture
async def models(checkpoint: LocalCheckpoint, pocket: RewardModel) -> AsyncIterator[Models]:
    metrics = Metrics()
    # Without kept prompts each request computes its prompt.
    settings = EngineConfig(device="cpu", prefix_cache_bytes=0)
    engine = Engine(pocket, name="pocket", config=settings, metrics=metrics)
    engine.start()
    await engine.wait_until_ready()
    policy = await started(make_policy(checkpoint))
    yield Models(policy, engine, metrics, SteeredPolicy(policy, EngineRewards(engine)))
    policy.close()
    engine.close()
