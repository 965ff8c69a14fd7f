"""The page of papers names functions and tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
ALIGN = "training/align"


def rows() -> list[list[str]]:
    text = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    return [row for row in cells if len(row) == 5 and row[0] not in ("paper", "---")]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[1][:40])
def test_functions_and_tests_are_there(row: list[str]) -> None:
    _, _, functions, tests, _ = row
    seen: list[Path] = []
    for name in re.findall(r"`([^`]+)`", functions):
        if name.endswith((".py", "/")):
            seen = [
                path
                for path in (ROOT / "steerward" / name, ROOT / "steerward" / ALIGN / name)
                if path.exists()
            ]
            assert seen, f"there is no {name}"
        else:
            assert any(name in path.read_text() for path in seen), f"{name} is not in {seen}"
    for name in re.findall(r"`([^`]+)`", tests):
        if name.startswith("tests/golden"):
            assert (ROOT / name).is_dir()
            continue
        places = (ROOT / name, ROOT / "tests" / ALIGN / name)
        assert any(path.exists() for path in places), f"there is no {name}"
