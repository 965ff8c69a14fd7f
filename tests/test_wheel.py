"""What is built holds everything that serving needs, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_wheel_holds_pocket_and_no_tests(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {info.filename: info.file_size for info in archive.infolist()}
    pocket = ROOT / "steerward" / "models" / "pocket"
    expected = {path.relative_to(ROOT).as_posix(): path.stat().st_size for path in pocket.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= {
        Path(name).name for name in expected
    }
    assert expected.items() <= packed.items()
    assert {name.partition("/")[0] for name in packed} == {
        "steerward",
        f"steerward-{wheel.name.split('-')[1]}.dist-info",
    }
    assert "steerward/py.typed" in packed
