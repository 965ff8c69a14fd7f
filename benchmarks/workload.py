"""Inputs of the benchmarks: a checkpoint with random weights and texts of known lengths.

Words are single tokens of the tokenizer that ships with the package, so that lengths in tokens
are what they are asked to be, up to the few tokens of the chat template.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
)

from steerward.gating.network import GatingNetwork
from steerward.models.heads import HeadParts, RewardHeads
from steerward.models.native import save_heads
from steerward.models.source import POCKET, resolve_source
from steerward.protocol.objectives import Objective, ObjectiveSet

NUM_OBJECTIVES = 19
MAX_POSITIONS = 8448
"""Room for a prompt of 8,192 tokens, its template and candidates."""


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt with its candidates."""

    prompt: str
    candidates: list[str]

    def body(self) -> dict[str, object]:
        """Return the item as a request has it."""
        return {"prompt": self.prompt, "candidates": self.candidates}


def _config(layers: int, width: int, **others: Any) -> LlamaConfig:
    """Return the configuration of a Llama for the tokenizer that ships with the package."""
    return LlamaConfig(
        vocab_size=len(AutoTokenizer.from_pretrained(resolve_source(POCKET))),
        hidden_size=width,
        intermediate_size=int(width * 2.75),
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        max_position_embeddings=MAX_POSITIONS,
        pad_token_id=0,
        **others,
    )


def write_classifier(folder: Path, *, layers: int, width: int, seed: int = 0) -> None:
    """Write a sequence classifier on a Llama with random weights: 19 labels and no gate."""
    torch.manual_seed(seed)
    config = _config(layers, width, num_labels=NUM_OBJECTIVES, problem_type="regression")
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve_source(POCKET)).save_pretrained(folder)


def write_checkpoint(folder: Path, *, layers: int, width: int, seed: int = 0) -> None:
    """Write a gated reward model on a Llama with random weights and 19 objectives."""
    torch.manual_seed(seed)
    AutoModel.from_config(_config(layers, width)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve_source(POCKET)).save_pretrained(folder)
    gate = GatingNetwork.random(
        hidden_size=width,
        gate_hidden_size=1024,
        num_hidden_layers=3,
        num_objectives=NUM_OBJECTIVES,
        temperature=10.0,
    )
    transform = torch.eye(NUM_OBJECTIVES)
    transform[4] -= 0.3
    heads = RewardHeads(torch.randn(NUM_OBJECTIVES, width) * width**-0.5)
    names = [Objective(name=f"objective_{i}") for i in range(NUM_OBJECTIVES)]
    save_heads(
        folder,
        HeadParts("steerward", heads, gate, transform),
        objectives=ObjectiveSet(objectives=tuple(names)),
    )


class Texts:
    """Random texts of a given number of tokens.

    Args:
        seed: Of the lengths.
        number: Of a round: the same lengths in other words, so that nothing can be kept of the
            rounds before.
    """

    def __init__(self, seed: int | str, number: int = 0) -> None:
        tokenizer = AutoTokenizer.from_pretrained(resolve_source(POCKET))
        self._words = sorted(w for w in tokenizer.get_vocab() if w.isascii() and w.isalpha())
        self._lengths = random.Random(seed)
        self._choices = random.Random(f"{seed} {number}")

    def text(self, low: int, high: int) -> str:
        """Return a text of between `low` and `high` tokens."""
        length = self._lengths.randint(low, high)
        return " ".join(self._choices.choices(self._words, k=length))


Lengths = tuple[int, int]
"""Fewest and most tokens of a text."""
Workload = Callable[[int], list[Item]]
"""Items of each round, by its number: the same lengths in other words."""


def workload_of(
    count: int, *, prompt: Lengths, candidate: Lengths, candidates: int = 1, seed: int = 0
) -> Workload:
    """Return prompts with candidates of random lengths between limits."""
    # No workload has a prompt that another one had before: an engine keeps prompts.
    key = f"{seed} {count} {prompt} {candidate} {candidates}"

    def items(number: int) -> list[Item]:
        texts = Texts(key, number)
        return [
            Item(texts.text(*prompt), [texts.text(*candidate) for _ in range(candidates)])
            for _ in range(count)
        ]

    return items


def ragged_singles(count: int) -> Workload:
    """Return single candidates of any length."""
    return workload_of(count, prompt=(10, 300), candidate=(20, 400))


def groups_of_8(count: int) -> Workload:
    """Return prompts of medium length with 8 candidates each."""
    return workload_of(count, prompt=(200, 400), candidate=(40, 200), candidates=8)


def groups_of_16(count: int) -> Workload:
    """Return long prompts with 16 candidates each."""
    return workload_of(count, prompt=(1024, 1024), candidate=(128, 128), candidates=16)


def short_singles(count: int) -> Workload:
    """Return single candidates that have 30 to 60 tokens with their prompts."""
    return workload_of(count, prompt=(12, 24), candidate=(12, 30))
