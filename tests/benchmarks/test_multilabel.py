"""The benchmark of multi-label reward models, at a tiny size."""

from __future__ import annotations

import json
import random
from pathlib import Path

from benchmarks.multilabel import Setting, own_texts, run
from tests.policies import save_policy
from tests.training.conftest import write_rows

NAMES = ["clarity", "harmlessness", "helpfulness", "verbosity"]


def test_four_labels_of_the_shipped_model_are_told_apart(tmp_path: Path) -> None:
    start = save_policy(tmp_path / "start", positions=2048)
    setting = Setting(start=str(start), answers=6, epochs=1, seeds=2, learning_rate=3e-3)
    result = run(setting, tmp_path)
    (shown,) = result["tables"]
    assert sorted(row[0] for row in shown["rows"]) == NAMES
    assert len(result["seeds"]) == 2
    assert all(0 < result["seeds"][0]["held_out"][name]["count"] < 96 for name in NAMES)
    labels = [
        json.loads(line)["labels"] for line in (tmp_path / "rows.jsonl").read_text().splitlines()
    ]
    assert len(labels) == 16 * 6
    missing = sum(one is None for row in labels for one in row.values())
    assert 0.1 < missing / (len(labels) * len(NAMES)) < 0.3


def test_labels_of_a_file_are_learned_in_place_of_our_own(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"q{i}", "response": "word " * (1 + i % 7), "labels": {"words": 1 + i % 7}}
        for i in range(60)
    ]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    start = save_policy(tmp_path / "start")
    setting = Setting(rows=str(path), objectives="words", start=str(start), epochs=1, seeds=1)
    result = run(setting, tmp_path)
    assert [row[0] for row in result["tables"][0]["rows"]] == ["words"]
    assert result["length_spearman"]["words"] > 0.99


def test_our_own_answers_are_many_and_none_is_empty() -> None:
    found = own_texts(30, random.Random(0))
    assert {len(texts) for texts in found.values()} == {30}
    assert all(text.strip(". ") for texts in found.values() for text in texts)
    assert found == own_texts(30, random.Random(0))
