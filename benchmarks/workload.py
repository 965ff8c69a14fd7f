"""Inputs of the benchmarks: a checkpoint with random weights and texts of known lengths.

Words are single tokens of the tokenizer that ships with the package, so that lengths in tokens
are what they are asked to be, up to the few tokens of the chat template.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer, LlamaConfig

from steerward.gating.network import GatingNetwork
from steerward.models.heads import HeadParts, RewardHeads
from steerward.models.native import save_heads
from steerward.models.source import POCKET, resolve_source
from steerward.protocol.objectives import Objective, ObjectiveSet

NUM_OBJECTIVES = 19


@dataclass(frozen=True, slots=True)
class Item:
    """One prompt with its candidates."""

    prompt: str
    candidates: list[str]

    def body(self) -> dict[str, object]:
        """Return the item as a request has it."""
        return {"prompt": self.prompt, "candidates": self.candidates}


def write_checkpoint(folder: Path, *, layers: int, width: int, seed: int = 0) -> None:
    """Write a gated reward model on a Llama with random weights and 19 objectives."""
    tokenizer = AutoTokenizer.from_pretrained(resolve_source(POCKET))
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=int(width * 2.75),
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 64,
        max_position_embeddings=4096,
        pad_token_id=0,
    )
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    gate = GatingNetwork.random(
        hidden_size=width,
        gate_hidden_size=256,
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
    """Random texts of a given number of tokens."""

    def __init__(self, seed: int) -> None:
        tokenizer = AutoTokenizer.from_pretrained(resolve_source(POCKET))
        self._words = sorted(w for w in tokenizer.get_vocab() if w.isascii() and w.isalpha())
        self._random = random.Random(seed)

    def text(self, low: int, high: int) -> str:
        """Return a text of between `low` and `high` tokens."""
        return " ".join(self._random.choices(self._words, k=self._random.randint(low, high)))


def grouped_items(count: int, *, candidates: int = 8, seed: int = 0) -> list[Item]:
    """Return prompts of 200 to 400 tokens, each with candidates of 40 to 200."""
    texts = Texts(seed)
    return [
        Item(texts.text(200, 400), [texts.text(40, 200) for _ in range(candidates)])
        for _ in range(count)
    ]


def single_items(count: int, *, seed: int = 0) -> list[Item]:
    """Return single candidates of 20 to 400 tokens behind prompts of 10 to 300."""
    texts = Texts(seed)
    return [Item(texts.text(10, 300), [texts.text(20, 400)]) for _ in range(count)]
