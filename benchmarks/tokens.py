"""How many tokens a workload needs: each distinct prompt once, and every candidate behind it.

This is the limit that the tables show. A way that computes C tokens where N are needed cannot be
beaten by more than C / N at its own cost per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer

from benchmarks.workload import Item
from steerward.models.chat import ChatEncoder
from steerward.models.packing import group_conversations


def needed_tokens(folder: Path, items: Sequence[Item]) -> int:
    """Return the tokens that must be computed to score all candidates of a workload."""
    encoder = ChatEncoder(AutoTokenizer.from_pretrained(folder))
    prompts: set[tuple[int, ...]] = set()
    total = 0
    for item in items:
        context = [{"role": "user", "content": item.prompt}]
        for group in group_conversations(encoder.encode(context, item.candidates)):
            prompts.add(tuple(group.prefix))
            total += sum(map(len, group.suffixes))
    return total + sum(map(len, prompts))
