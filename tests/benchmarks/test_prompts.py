"""Prompts of benchmarks are split as their file says."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.prompts import prompts_of


def test_prompts_of_a_file_are_split_as_it_says(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    rows = [
        {"prompt": f"Who is {i}?", "split": split, "source": source}
        for i, (split, source) in enumerate(
            [("train", "a"), ("train", "b"), ("test", "a"), ("train", "a")]
        )
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    training, held_out = prompts_of(str(path), sources="a", training=9, held_out=9)
    assert sorted(training) == ["Who is 0?", "Who is 3?"]
    assert held_out == ["Who is 2?"]


def test_prompts_are_our_own_without_a_file() -> None:
    training, held_out = prompts_of("", sources="", held_out=3)
    assert len(held_out) == 3
    assert not set(training) & set(held_out)
