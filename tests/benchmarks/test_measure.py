"""What is kept of a measurement can be run again."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from benchmarks.measure import environment


def test_recorded_command_runs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command named the module without its package, which `python -m` does not find."""
    started = SimpleNamespace(name="benchmarks.score_throughput")
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", started)
    monkeypatch.setattr(sys, "argv", ["/x/benchmarks/score_throughput.py", "--out", "a b.json"])
    expected = "python -m benchmarks.score_throughput --out 'a b.json'"
    assert environment()["command"] == expected
