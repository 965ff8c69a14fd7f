"""The comparison of MAPL with its twin runs at a tiny size, and tells what was found."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import mapl_follow
from benchmarks.mapl_follow import MAPL, MEASURES, PAIRS, TWIN, Setting, summarise
from tests.policies import save_policy


def test_tiny_run_tells_accuracies_of_both_ways(tmp_path: Path) -> None:
    base = save_policy(tmp_path / "base", positions=2048)
    setting = Setting(
        base=str(base),
        steps=2,
        seeds=1,
        batch_size=5,
        measure_every=2,
        plot=str(tmp_path / "plot.png"),
    )
    found = mapl_follow.run(setting, tmp_path / "work")
    assert found["num_pairs"] > 20
    assert [row[0] for row in found["tables"][0]["rows"]] == list(MEASURES)
    start = {
        way: [one["mean"] for one in found["points"] if (one["way"], one["step"]) == (way, 0)]
        for way in (MAPL, TWIN)
    }
    # The same weights, head and held-out rows.
    assert start[MAPL] == start[TWIN]
    assert all(0 <= one["low"] <= one["high"] <= 1 for one in found["points"])
    assert (tmp_path / "plot.png").is_file()


def test_gain_is_of_the_same_pairs() -> None:
    def trained(right: list[float]) -> dict[str, Any]:
        steps = {0: dict.fromkeys(MEASURES, [0.5] * 4), 8: dict.fromkeys(MEASURES, right)}
        return {"steps": steps, "held_out_kinds": ["a:b"], "seconds": 1.0}

    found = {
        MAPL: [trained([1.0, 1.0, 1.0, 0.0]), trained([1.0, 1.0, 1.0, 1.0])],
        TWIN: [trained([0.0, 0.0, 0.0, 0.0]), trained([0.0, 0.0, 0.0, 0.0])],
    }
    shown = summarise(found, Setting())
    gain = shown["gains"][PAIRS]
    assert gain["by_seed"] == [0.75, 1.0]
    assert gain["mean"] == pytest.approx(0.875)
    assert gain["low"] < 0.875 <= gain["high"] <= 1


def test_pairs_of_files_are_short_and_one_of_a_prompt(tmp_path: Path) -> None:
    def row(prompt: str, chosen: str, split: str = "train") -> dict[str, Any]:
        turns = [{"role": "user", "content": prompt}]
        return {"messages": turns, "chosen": chosen, "rejected": "no", "split": split}

    rows = [row("a", "yes"), row("a", "also"), row("b", "y" * 500), row("c", "no"), row("d", "so")]
    rows += [row("e", "unseen", "test")]
    with gzip.open(tmp_path / "pairs.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(one) + "\n" for one in rows)
    found = mapl_follow._drawn(Setting(pairs=str(tmp_path)))
    assert sorted(one["chosen"] for one in found) == ["so", "yes"]
