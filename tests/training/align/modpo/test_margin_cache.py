"""Margins outlive the process that computed them, and a kill in the middle of a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from steerward.protocol.errors import DatasetRefused
from steerward.training.align.modpo.margin_cache import MarginCache, margin_key


def test_margins_are_read_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "below" / "margins.jsonl"
    MarginCache(path).add([("a", 0.1 + 0.2), ("b", -1e-30)])
    MarginCache(path).add([("a", 5.0), ("c", 1.0)])
    again = MarginCache(path)
    assert [again[key] for key in "abc"] == [0.1 + 0.2, -1e-30, 1.0]
    assert len(again) == 3
    assert "d" not in again


def test_line_that_was_cut_off_is_left_out_and_not_joined(tmp_path: Path) -> None:
    path = tmp_path / "margins.jsonl"
    MarginCache(path).add([("a", 1.0), ("b", 2.0)])
    path.write_bytes(path.read_bytes()[:-4])
    cache = MarginCache(path)
    assert "b" not in cache
    cache.add([("c", 3.0)])
    assert len(MarginCache(path)) == 2


@pytest.mark.parametrize("line", ["no JSON", "[1]", '{"key": "a"}', '{"key": "a", "margin": NaN}'])
def test_other_files_are_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "margins.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(DatasetRefused, match="line 1: no margin with its key"):
        MarginCache(path)


def test_key_is_of_everything_that_a_margin_depends_on() -> None:
    given = {"source": "s", "prompt": "p", "response": "r", "columns": {"a": 1}}
    changed = [
        {"source": "t"},
        {"prompt": [{"role": "user", "content": "p"}]},
        {"response": "q"},
        {"columns": {"a": 2}},
    ]
    keys = {_key(given | change) for change in [{}, *changed]}
    assert len(keys) == 5
    assert _key(given) in keys


def _key(given: dict[str, object]) -> str:
    return margin_key(
        str(given["source"]),
        prompt=given["prompt"],
        response=given["response"],
        columns=dict(given["columns"]),  # pyright: ignore
    )
