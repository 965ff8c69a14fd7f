"""Small jobs of rejection-sampling fine-tuning: what they are asked for, and what they leave."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from steerward.jobs.rsf.samples import read_samples
from steerward.jobs.rsf.workspace import Workspace

WORDS = ["rainbows", "the fox", "light", "drops", "the dog", "water", "numbers", "you"]
SETTINGS: Mapping[str, Any] = {
    "iterations": 2,
    "prompts_per_iteration": 24,
    "candidates_per_prompt": 3,
    "directions": 3,
    "max_tokens": 12,
    "concurrency": 4,
    "reward_scale": "prompt",
    "require_finished": False,
    "max_repetition": None,
    "evaluation_prompts": 3,
    "evaluation_directions": 2,
    "training": {"batch_size": 8, "learning_rate": 1e-3},
}
"""Of a job that the tiny policy and the golden ArmoRM can do in seconds."""

Selected = list[tuple[int, int, str]]


def prompt_rows(count: int = 40) -> list[dict[str, str]]:
    return [
        {"prompt": f"Tell me about {WORDS[number % len(WORDS)]}, {number} times."}
        for number in range(count)
    ]


def prompt_lines(count: int = 40) -> bytes:
    """Return a file of prompts."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in prompt_rows(count))


def selected_set(rows: Iterable[Mapping[str, Any]]) -> Selected:
    """Return which samples were selected: row of the prompt, direction and text."""
    return sorted(
        (row["prompt_row"], row["direction_index"], row["completion"])
        for row in rows
        if row["selected"]
    )


def selected_in(folder: Path, iteration: int) -> Selected:
    """Return the same of an iteration in the folder of a job."""
    rows = read_samples(Workspace(folder).iteration(iteration).samples)
    return sorted(
        (row.prompt_row, row.direction_index, row.completion) for row in rows if row.selected
    )
