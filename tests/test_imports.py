"""What an import loads, seen in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "numpy", "safetensors", "fastapi", "transformers", "uvicorn", "triton"}


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}; import sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in json.loads(done.stdout)}


@pytest.mark.parametrize(
    "statement",
    [
        "import steerward",
        "import steerward.clients",
        "from steerward import Client, AsyncClient",
        "import steerward.protocol.scoring",
        "import steerward.config",
        "import steerward.cli.main",
    ],
)
def test_light_imports_load_nothing_heavy(statement: str) -> None:
    assert not loaded_by(statement) & HEAVY


def test_server_does_not_load_trainers() -> None:
    loaded = loaded_by("import steerward.server.app")
    # accelerate is loaded by transformers itself where it is installed.
    assert not loaded & {"trl", "ray", "vllm"}
