"""Prompts to train on and held-out ones: of a file, or our own questions."""

from __future__ import annotations

import gzip
import json
import random

from benchmarks.dialogues import QUESTIONS

_LONGEST_PROMPT = 300


def prompts_of(
    path: str, *, sources: str, held_out: int, training: int | None = None
) -> tuple[list[str], list[str]]:
    """Return prompts to train on and held-out ones, in an order of their own, always the same.

    Args:
        path: JSON lines with prompt, split (train or test) and source, also gzipped; our own
            questions, half of them held out, if it is empty.
        sources: Names with commas between them.
        held_out: Most held-out prompts.
        training: Most prompts to train on; None takes all.
    """
    if not path:
        half = len(QUESTIONS) // 2
        return QUESTIONS[:half][:training], QUESTIONS[half:][:held_out]
    wanted = sources.split(",")
    by_split: dict[str, set[str]] = {"train": set(), "test": set()}
    opened = gzip.open if path.endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            if row["source"] in wanted and len(row["prompt"]) <= _LONGEST_PROMPT:
                by_split[row["split"]].add(row["prompt"])
    order = random.Random(0)
    first, second = (order.sample(sorted(found), len(found)) for found in by_split.values())
    return first[:training], second[:held_out]
