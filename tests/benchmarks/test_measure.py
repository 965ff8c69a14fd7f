"""What is kept of a measurement can be run again."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from benchmarks.measure import environment, orders, percentile


def test_recorded_command_runs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command named the module without its package, which `python -m` does not find."""
    started = SimpleNamespace(name="benchmarks.score_throughput")
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", started)
    monkeypatch.setattr(sys, "argv", ["/x/benchmarks/score_throughput.py", "--out", "a b.json"])
    expected = "python -m benchmarks.score_throughput --out 'a b.json'"
    assert environment()["command"] == expected


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(i) for i in range(100, 0, -1)]
    assert percentile(values, 0.5) == 50.0
    assert percentile(values, 0.99) == 99.0
    assert percentile([3.0], 0.99) == 3.0
    assert percentile([], 0.5) is None


def test_every_round_has_every_method_in_alternating_order() -> None:
    found = list(orders(["a", "b"], rounds=2))
    assert found == [(-1, "a"), (-1, "b"), (0, "b"), (0, "a"), (1, "a"), (1, "b")]
