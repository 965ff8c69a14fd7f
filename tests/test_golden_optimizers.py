"""The golden numbers of optimisers are those that their scripts write, and owe us nothing."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.golden.optimizers.document import NUM_CASES, Family, document, written
from tests.golden.optimizers.families import FAMILIES
from tests.golden_cases import GOLDEN

SCRIPTS = sorted((GOLDEN / "optimizers").glob("*.py"))
# Numpy may add in another order on other machines.
TOLERANCE = 1e-12
families = pytest.mark.parametrize("family", FAMILIES, ids=[family.name for family in FAMILIES])


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Return every number and word at any depth, with the way to it."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from leaves(one, f"{path}.{key}")
    elif isinstance(value, list):
        yield (f"{path}.length", len(value))
        for place, one in enumerate(value):
            yield from leaves(one, f"{path}.{place}")
    else:
        yield (path, value)


@families
def test_script_reproduces_its_file(family: Family) -> None:
    kept = json.loads(family.path.read_text(encoding="utf-8"))
    again = json.loads(written(document(family)))
    assert kept["seed"] == family.seed
    assert len(kept["cases"]) == NUM_CASES
    found, expected = dict(leaves(again["cases"])), dict(leaves(kept["cases"]))
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        if isinstance(value, float):
            assert found[path] == pytest.approx(value, rel=TOLERANCE, abs=TOLERANCE), path
        else:
            assert found[path] == value, path


@families
def test_file_tells_when_and_with_what_it_was_written(family: Family) -> None:
    kept = json.loads(family.path.read_text(encoding="utf-8"))
    assert kept.keys() == {"seed", "written", "versions", "cases"}
    assert kept["versions"].keys() == {"python", "numpy"}


def test_every_file_has_a_script() -> None:
    files = {path.stem for path in (GOLDEN / "optimizers").glob("*.json")}
    assert files == {family.name for family in FAMILIES}


@pytest.mark.parametrize("script", SCRIPTS, ids=[path.stem for path in SCRIPTS])
def test_scripts_import_neither_torch_nor_what_they_check(script: Any) -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module)
    packages = {name for name in imported if not name.startswith("tests.golden.optimizers")}
    assert not {name.split(".")[0] for name in packages} & {"steerward", "torch", "trl", "tests"}
