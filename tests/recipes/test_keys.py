"""Recipes read the key from the environment, where `ps` does not show it."""

from __future__ import annotations

import asyncio
import runpy
from pathlib import Path

import pytest

from tests.clients.test_nemo_gym import BODY
from tests.contract.conftest import KEY, Served, served

__all__ = ["served"]  # a fixture, used by name below

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def url(served: Served, monkeypatch: pytest.MonkeyPatch) -> str:
    url = served.url.removesuffix("/v1")
    monkeypatch.setenv("STEERWARD_URL", url)
    monkeypatch.setenv("STEERWARD_API_KEY", KEY)
    return url


def test_trl_recipe_reads_the_key_of_the_environment(url: str) -> None:
    columns = runpy.run_path(str(RECIPES / "trl" / "train.py"))["functions"](url)
    assert columns[0].__name__ == "steerward_score"
    assert len(columns) > 1


def test_nemo_recipe_reads_the_key_of_the_environment(url: str) -> None:
    answer = asyncio.run(runpy.run_path(str(RECIPES / "nemo" / "app.py"))["verify"](BODY))
    assert isinstance(answer["reward"], float)
