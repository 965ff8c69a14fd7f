"""The layering rule: who may import whom, and what a folder must never load.

Read from the source, so imports under TYPE_CHECKING and inside functions obey it too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "steerward"

# Part of the package -> parts it may import. Anything not listed is forbidden.
MAY_IMPORT: dict[str, set[str]] = {
    "protocol": set(),
    "kernels": set(),
    "metrics": set(),
    "logs": set(),
    "config": {"protocol"},
    "instructions": {"protocol"},
    "judges": {"instructions", "protocol"},
    "gating": {"kernels", "protocol"},
    "clients": {"protocol"},
    "models": {"gating", "kernels", "protocol", "logs"},
    "engine": {"models", "protocol", "config", "metrics", "logs"},
    # Both load checkpoints and write conversations by their templates.
    "policy": {"models", "protocol", "config", "metrics", "logs"},
    "training": {
        *("models", "gating", "kernels", "protocol", "logs", "config"),
        *("judges", "instructions"),
    },
    # Starts training as a process, and knows policies and reward models as ports only.
    "jobs": {"clients", "judges", "protocol", "config", "logs"},
    # Loads a model into an engine, which counts, or asks a server for it.
    "evaluation": {
        *("clients", "engine", "protocol", "config", "logs", "metrics", "instructions"),
    },
    "server": {"engine", "policy", "jobs", "protocol", "config", "metrics", "logs"},
    "cli": {
        *("protocol", "config", "logs", "engine", "models", "server", "training", "jobs"),
        *("clients", "evaluation"),
    },
    "__init__": {"clients"},
    "__main__": {"cli"},
}

_HEAVY = {"torch", "transformers", "triton"}
_WEB = {"fastapi", "starlette", "uvicorn"}
_TRAINERS = {"trl", "peft", "accelerate", "datasets", "sklearn"}
NEVER: dict[str, set[str]] = {
    "protocol": {*_HEAVY, *_WEB, *_TRAINERS, "numpy", "httpx"},
    "config": {*_HEAVY, *_WEB, *_TRAINERS},
    "instructions": {*_HEAVY, *_WEB, *_TRAINERS, "numpy", "httpx"},
    "judges": {*_HEAVY, *_WEB, *_TRAINERS, "numpy"},
    "metrics": {*_HEAVY, *_WEB, *_TRAINERS},
    "logs": {*_HEAVY, *_WEB, *_TRAINERS},
    "clients": {*_HEAVY, *_WEB, *_TRAINERS, "numpy"},
    "kernels": {"transformers", *_WEB, *_TRAINERS},
    "gating": {"transformers", *_WEB, *_TRAINERS},
    "models": {*_WEB, *_TRAINERS},
    "engine": {*_WEB, *_TRAINERS, "httpx"},
    "policy": {*_WEB, *_TRAINERS},
    "training": _WEB,
    "jobs": {*_HEAVY, *_WEB, *_TRAINERS},
    "evaluation": {*_HEAVY, *_WEB, *_TRAINERS, "numpy"},
    "server": {*_HEAVY, *_TRAINERS},
}

# Loaded inside functions only, and only for those who ask: `test_imports` sees to it.
EXCEPT: dict[str, set[str]] = {
    "clients/arrays.py": {"numpy"},
    "policy/local/adapters.py": {"peft"},
}

FORBIDDEN_NAMES = {"utils", "common", "helpers", "misc", "base", "core"}


def modules() -> list[tuple[str, Path]]:
    return [
        (path.relative_to(PACKAGE).with_suffix("").parts[0], path)
        for path in sorted(PACKAGE.rglob("*.py"))
    ]


def imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node.lineno
            if node.module == "steerward":
                yield from ((f"steerward.{alias.name}", node.lineno) for alias in node.names)


@pytest.mark.parametrize(
    ("part", "path"), modules(), ids=[str(p.relative_to(PACKAGE)) for _, p in modules()]
)
def test_module_imports_only_what_its_layer_may(part: str, path: Path) -> None:
    never = NEVER.get(part, set()) - EXCEPT.get(path.relative_to(PACKAGE).as_posix(), set())
    wrong: list[str] = []
    for name, line in imports(path):
        top, _, rest = name.partition(".")
        if top == "steerward":
            target = rest.split(".")[0]
            if target and target not in {part, "__init__"} | MAY_IMPORT[part]:
                wrong.append(f"line {line}: {part} may not import {name}")
        elif top in never:
            wrong.append(f"line {line}: {part} must never load {top}")
    assert not wrong


def test_cli_imports_subsystems_only_inside_functions() -> None:
    # The settings of training are as light as all settings.
    allowed = {"protocol", "config", "cli", "logs", "training"}
    for path in (PACKAGE / "cli").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("steerward."):
                part, *rest = (node.module or "").split(".")[1:]
                assert part in allowed, f"{path.name}: {node.module}"
                is_settings = not rest or rest[-1] == "config" or rest[-1].endswith("settings")
                assert part != "training" or is_settings, f"{path.name}: {node.module}"


def test_every_part_has_a_rule() -> None:
    assert {part for part, _ in modules()} <= set(MAY_IMPORT)


def test_no_folder_or_module_has_an_empty_name() -> None:
    names = {
        part for _, path in modules() for part in path.relative_to(PACKAGE).with_suffix("").parts
    }
    assert not names & FORBIDDEN_NAMES


def test_nothing_runs_code_from_a_checkpoint() -> None:
    """Remote code, pickles and telemetry have no place in the package."""
    for _, path in modules():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert isinstance(node.value, ast.Constant)
                assert node.value.value is False, path
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not names & {"pickle", "cPickle", "dill", "cloudpickle"}, path
            if isinstance(node, ast.Attribute) and node.attr == "load":
                assert not (isinstance(node.value, ast.Name) and node.value.id == "torch"), path
