"""A server on a real port, in a thread of its own, for clients that others wrote."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn

from steerward.config import ServeConfig
from steerward.engine.loading import load_engines
from steerward.metrics import Metrics
from steerward.policy.loading import load_policies
from steerward.server.app import create_app
from tests.golden_cases import GOLDEN
from tests.policies import ARMORM_RULE, save_policy

KEY = "secret"


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs."""

    url: str
    policy: Any
    metrics: Metrics


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The golden ArmoRM and a tiny policy, behind a key, with few places."""
    folder = save_policy(tmp_path_factory.mktemp("policies") / "tiny", rule=ARMORM_RULE)
    config = ServeConfig.model_validate(
        {
            "reward_model": [str(GOLDEN / "armorm")],
            "policy": [str(folder)],
            "device": "cpu",
            "policy_device": "cpu",
            "api_key": [KEY],
            "profiles": {"concise": {"helpfulness": 2.0, "verbosity": -1.0}},
            "max_running_completions": 8,
            "max_waiting_completions": 24,
        }
    )
    metrics = Metrics()
    engines = load_engines(config, metrics)
    policies = load_policies(config, taken=list(engines))
    app = create_app(config, engines, policies, metrics)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    models = [*engines.values(), *policies.values()]
    deadline = time.monotonic() + 60.0
    while not (server.started and all(model.is_ready for model in models)):
        assert time.monotonic() < deadline, [model.reason for model in models]
        time.sleep(0.01)
    (listener,) = server.servers[0].sockets
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    yield Served(url, policies["tiny"], metrics)
    server.should_exit = True
    thread.join(timeout=30.0)
    assert not thread.is_alive()
