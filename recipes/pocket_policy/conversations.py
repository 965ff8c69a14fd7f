"""The conversations that pocket-policy learns to speak from: short ones, of the train split."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Longer turns are beyond a model of this size, and would take most of its time.
MAX_TURN_CHARACTERS = 600

# Some sources answer the same prompt many times over.
MAX_PER_PROMPT = 3


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns that begin with the user's and end with the assistant's."""

    source: str
    messages: tuple[dict[str, str], ...]


def load_conversations(data: Path, *, split: str = "train") -> list[Conversation]:
    """Return the conversations of a split whose turns are all short.

    Turns after the first long one are left out, and conversations that begin with one.

    Args:
        data: Folder with sft/*.jsonl.gz.
        split: ``train`` or ``test``.
    """
    files = sorted((data / "sft").glob("*.jsonl.gz"))
    if not files:
        raise SystemExit(f"there are no sft/*.jsonl.gz in {data}")
    found: list[Conversation] = []
    for path in files:
        answers: Counter[str] = Counter()
        for row in _rows(path):
            turns = _short_turns(row["messages"])
            if row["split"] != split or len(turns) < 2 or turns[0]["role"] != "user":
                continue
            prompt = turns[0]["content"]
            answers[prompt] += 1
            if answers[prompt] <= MAX_PER_PROMPT:
                found.append(Conversation(row["source"], tuple(turns)))
    return found


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _short_turns(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    turns: list[dict[str, str]] = []
    for message in messages:
        content = message["content"].strip()
        if not content or len(content) > MAX_TURN_CHARACTERS:
            break
        turns.append({"role": message["role"], "content": content})
    while turns and turns[-1]["role"] != "assistant":
        turns.pop()
    return turns
