"""What a command needs is asked for when it runs, with the words that install it."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("absent", "arguments", "extra"),
    [
        ("uvicorn", ["serve"], "server"),
        ("torch", ["score", "in.jsonl", "out.jsonl"], "server"),
        ("sklearn", ["train", "evaluate", "--data", "d.jsonl", "--out", "o"], "train"),
    ],
)
def test_absent_package_is_named_with_its_extra(
    absent: str, arguments: list[str], extra: str
) -> None:
    program = (
        f"import sys; sys.modules[{absent!r}] = None\n"
        "from steerward.cli.main import main\n"
        f"sys.exit(main({arguments!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert f"needs '{absent}', which is not installed" in done.stderr
    assert f"pip install 'steerward[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
