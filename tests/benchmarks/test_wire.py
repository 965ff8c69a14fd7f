"""The benchmark of the wire checks what it times, and times every way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from benchmarks.wire import Setting, _check_same, run
from tests.clients.test_arrays import ROW, SUMMARY


def test_every_way_is_timed(tmp_path: Path) -> None:
    found = run(Setting(rounds=1, few=8, many=16), tmp_path)
    result = found["figures"]
    answer, request = result["answer of 16"], result["request of 16"]
    assert set(answer) == {"JSON", "arrays", "JSON, explained", "arrays, explained"}
    assert set(request) == {"text", "token ids"}
    for figures, steps in ((answer, ("encode", "decode")), (request, ("parse", "read"))):
        assert all(way[f"{step}_ms"] > 0 for way in figures.values() for step in steps)
    assert answer["arrays"]["bytes"] < answer["JSON"]["bytes"]
    assert len(found["tables"]) == 4


def test_numbers_that_differ_are_not_timed() -> None:
    summary = {"summary": json.dumps(SUMMARY)}
    by_name = b'{"items": [{"candidates": [{"rewards": {"a": 1.0}}]}]}'
    _check_same(by_name, save(ROW, metadata=summary))
    other = {**ROW, "rewards": np.full((1, 1), 2.0, np.float32)}
    with pytest.raises(SystemExit, match="different rewards"):
        _check_same(by_name, save(other, metadata=summary))
