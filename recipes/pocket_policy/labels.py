"""Second step: the pocket reward model says what it thinks of the answers in the conversations."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recipes.pocket_policy.conversations import Conversation
from recipes.pocket_policy.rule import RULE
from steerward.config import ScoreFileConfig
from steerward.engine.bulk import score_file
from steerward.engine.bulk_output import state_path
from steerward.training.conditioning import Floats

# Of the conversations, how many give their first answer; the others give a later one.
FIRST_ANSWERS = 0.75
MAX_CONTEXT_CHARACTERS = 1200


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers in their conversations, with their rewards."""

    contexts: list[list[dict[str, str]]]
    responses: list[str]
    sources: list[str]
    rewards_NM: Floats
    """By the objectives of the rule."""


def label_answers(
    conversations: Sequence[Conversation], *, work: Path, seed: int, reward_model: str = "pocket"
) -> Answers:
    """Score one answer of each conversation; a run that was stopped goes on where it stopped."""
    source, target = work / "answers.jsonl", work / "rewards.jsonl"
    items = [_item(found, random.Random(f"{seed}/{i}")) for i, found in enumerate(conversations)]
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    if not target.exists() or state_path(target).exists():
        config = ScoreFileConfig(
            source=source, target=target, reward_model=reward_model, dtype="int8"
        )
        asyncio.run(score_file(config))
    rewards: list[list[float]] = []
    kept: list[dict[str, object]] = []
    sources: list[str] = []
    with target.open(encoding="utf-8") as file:
        for found, item, line in zip(conversations, items, file, strict=True):
            row = json.loads(line)
            if "error" not in row:
                sources.append(found.source)
                by_name = row["candidates"][0]["rewards"]
                rewards.append([by_name[name] for name in RULE.objectives])
                kept.append(item)
    return Answers(
        [item["prompt"] for item in kept],  # pyright: ignore[reportReturnType]
        [item["candidates"][0] for item in kept],  # pyright: ignore[reportIndexIssue]
        sources,
        np.array(rewards),
    )


def _item(conversation: Conversation, order: random.Random) -> dict[str, object]:
    messages = conversation.messages
    places = [i for i, turn in enumerate(messages) if turn["role"] == "assistant"]
    place = places[0] if order.random() < FIRST_ANSWERS else order.choice(places)
    context = list(messages[:place])
    while sum(len(turn["content"]) for turn in context) > MAX_CONTEXT_CHARACTERS:
        context = context[2:]
    return {"prompt": context, "candidates": [messages[place]["content"]]}
