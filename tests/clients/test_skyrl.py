"""SkyRL's environment: init, one step, metrics."""

from __future__ import annotations

from typing import Any

import pytest

from steerward.clients import Client
from steerward.clients._rewards import scorer
from steerward.clients.skyrl import Environment, register
from steerward.protocol.errors import InvalidRequest
from tests.contract.conftest import KEY, Served, served

__all__ = ["served"]  # a fixture, used by name below

PROMPT = [{"role": "user", "content": "Hello?"}]


def run_episode(environment: Any, url: str) -> None:
    with pytest.raises(InvalidRequest, match="before init"):
        environment.step("Fine.")
    assert environment.init(PROMPT) == (PROMPT, {})
    found = environment.step("Fine.")
    with Client(url, api_key=KEY) as client:
        candidate = client.score(PROMPT, ["Fine."]).items[0].candidates[0]
    assert found["reward"] == pytest.approx(candidate.score, abs=1e-4)
    assert found["done"]
    assert found["observations"] == []
    named = {f"objective/{name}": value for name, value in candidate.rewards.items()}
    assert environment.get_metrics() == pytest.approx(named, abs=1e-4)


def test_episode_is_one_answer(served: Served) -> None:
    url = served.url.removesuffix("/v1")

    class Here(Environment):
        scoring = scorer(url, api_key=KEY)

    run_episode(Here(env_config=None, extras={}), url)


def test_skyrl_makes_the_registered_environment(served: Served) -> None:
    gym = pytest.importorskip("skyrl_gym", reason="skyrl-gym is not installed")
    registration = pytest.importorskip("skyrl_gym.envs.registration")
    url = served.url.removesuffix("/v1")
    register("steerward", url, api_key=KEY)
    try:
        run_episode(gym.make("steerward", env_config=None, extras={}), url)
    finally:
        registration.deregister("steerward")
