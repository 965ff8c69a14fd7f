"""Where checkpoints come from: shipped, a folder, or the hub's cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from steerward.models.source import checkpoint_name, resolve_source
from steerward.protocol.errors import NotFound
from tests.golden_cases import GOLDEN


def test_folder_is_taken_as_it_is() -> None:
    assert resolve_source(str(GOLDEN / "urm")) == GOLDEN / "urm"


@pytest.mark.parametrize("source", ["./missing", "/missing/model", "no such", "a/b/c"])
def test_path_that_is_not_there_is_not_found(source: str) -> None:
    with pytest.raises(NotFound, match="pocket"):
        resolve_source(source)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("pocket", "pocket"),
        ("RLHFlow/ArmoRM-Llama3-8B-v0.1", "ArmoRM-Llama3-8B-v0.1"),
        ("RLHFlow/ArmoRM-Llama3-8B-v0.1@eb2676d", "ArmoRM-Llama3-8B-v0.1"),
        (str(GOLDEN / "armorm"), "armorm"),
        (str(GOLDEN / "armorm") + "/", "armorm"),
    ],
)
def test_default_name_is_the_last_component(source: str, name: str) -> None:
    assert checkpoint_name(source) == name


def test_hub_id_is_loaded_from_the_local_cache_without_network(tmp_path: Path) -> None:
    """A hub id goes through the hub's own library; offline, its cache answers."""
    repository = tmp_path / "models--RLHFlow--ArmoRM-Llama3-8B-v0.1"
    revision = "0123456789abcdef0123456789abcdef01234567"
    snapshot = repository / "snapshots" / revision
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(GOLDEN / "armorm", target_is_directory=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    code = (
        "from steerward.models.checkpoint import load_reward_model\n"
        "model = load_reward_model('RLHFlow/ArmoRM-Llama3-8B-v0.1', device='cpu')\n"
        "print(model.objectives.names[4])"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "helpsteer-verbosity"


def test_hub_id_that_cannot_be_fetched_says_what_to_do(tmp_path: Path) -> None:
    code = (
        "from steerward.models.source import resolve_source\n"
        "from steerward.protocol.errors import NotFound\n"
        "try:\n    resolve_source('owner/absent')\n"
        "except NotFound as error:\n    print(error.message)"
    )
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "local folder" in done.stdout
