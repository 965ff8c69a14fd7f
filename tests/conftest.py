"""Fixtures that many folders share: real checkpoints, real engines, nothing pretended."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Before any test imports a tokenizer: forked workers of other libraries would warn otherwise.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# The models here are tiny: a second thread costs more than it computes, in children too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Servers that tests start must not touch the jobs of whoever runs the tests.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="steerward-tests-")

import pytest

from steerward.config import ServeConfig
from steerward.models.checkpoint import load_reward_model
from steerward.models.reward_model import RewardModel
from tests.golden_cases import GOLDEN, GOLDEN_NAMES

STATE_HOME = os.environ["XDG_STATE_HOME"]

# A shell that runs the tests in the background has them ignore Ctrl-C, which some of them send.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    """Remove the jobs' folder, also of a worker of pytest-xdist and where tests failed."""
    shutil.rmtree(STATE_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def golden_models() -> dict[str, RewardModel]:
    """Every golden checkpoint, loaded once in float32."""
    return {name: load_reward_model(GOLDEN / name, device="cpu") for name in GOLDEN_NAMES}


@pytest.fixture
def armorm(golden_models: dict[str, RewardModel]) -> RewardModel:
    return golden_models["armorm"]


@pytest.fixture
def armorm_folder(tmp_path: Path) -> Path:
    """A copy of the golden ArmoRM checkpoint that a test may damage."""
    return Path(shutil.copytree(GOLDEN / "armorm", tmp_path / "armorm"))


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Commands set up the root logger; the next test gets back its own."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("STEERWARD_"):
            monkeypatch.delenv(name)


@pytest.fixture
def serve_config(clean_environment: None) -> ServeConfig:
    return ServeConfig(device="cpu")
