"""What is built holds everything that serving needs, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from steerward.models.source import POCKET, POCKET_POLICY, resolve_source

ROOT = Path(__file__).parents[1]


def test_wheel_holds_what_ships_and_no_tests(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {info.filename: info.file_size for info in archive.infolist()}
    for name in (POCKET, POCKET_POLICY):
        expected = {
            path.relative_to(ROOT).as_posix(): path.stat().st_size
            for path in resolve_source(name).iterdir()
        }
        assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= {
            Path(path).name for path in expected
        }
        assert expected.items() <= packed.items()
    assert sum(packed.values()) < 90e6
    assert {name.partition("/")[0] for name in packed} == {
        "steerward",
        f"steerward-{wheel.name.split('-')[1]}.dist-info",
    }
    assert "steerward/py.typed" in packed
