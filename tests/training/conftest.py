"""A tiny backbone and small rating and preference data of our own."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, LlamaConfig

from tests.checkpoints import copy_tokenizer

_GOOD = ["clear", "careful", "useful", "exact", "kind", "thorough", "honest", "warm", "bright"]
_BAD = ["rude", "vague", "wrong", "harsh", "lazy", "dull", "false", "cold", "broken"]
_NEUTRAL = ["the", "a", "that", "with", "from", "river", "table", "seven", "green", "walking"]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def response(rng: random.Random, *, quality: float, length: int) -> str:
    """Return words of which a share by quality is good, the others bad or neutral."""
    words = [
        rng.choice(_NEUTRAL if rng.random() < 0.5 else _GOOD if rng.random() < quality else _BAD)
        for _ in range(length)
    ]
    return " ".join(words)


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1024,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.2,
        pad_token_id=1023,
    )
    AutoModel.from_config(config).save_pretrained(folder)
    copy_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def rating_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 rated responses of two sources; quality on 1..5, tone on 0..1 and often missing."""
    rng = random.Random(1)
    rows: list[dict[str, Any]] = []
    for i in range(600):
        quality, length = rng.random(), rng.randint(4, 40)
        ratings: dict[str, float] = {"quality": 1 + 4 * quality}
        if i % 3 == 0:
            ratings["tone"] = float(quality > 0.5)
        rows.append(
            {
                "id": f"r{i}",
                "source": "first" if i % 4 else "second",
                "split": "train" if i % 5 else "test",
                "messages": [{"role": "user", "content": f"question {i % 150}"}],
                "response": response(rng, quality=quality, length=length),
                "ratings": ratings,
                "annotator": "nobody",
            }
        )
    rows[7]["messages"] = []
    return write_rows(tmp_path_factory.mktemp("data") / "rated.jsonl.gz", rows)


@pytest.fixture(scope="session")
def pair_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 pairs; the better answer is preferred, whichever is longer."""
    rng = random.Random(2)
    rows = [
        {
            "id": f"p{i}",
            "source": "pairs",
            "split": "train" if i % 5 else "test",
            "messages": [{"role": "user", "content": f"question {i % 150}"}],
            "chosen": response(rng, quality=0.9, length=rng.randint(4, 40)),
            "rejected": response(rng, quality=0.1, length=rng.randint(4, 40)),
            "category": "quality",
        }
        for i in range(400)
    ]
    return write_rows(tmp_path_factory.mktemp("data") / "pairs.jsonl", rows)


@pytest.fixture(scope="session")
def objectives_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "objectives.json"
    rated = {"low": 1, "high": 5, "attribute": "quality"}
    objectives = {
        "helpfulness": [
            {"source": "first", **rated},
            {"source": "second", **rated},
            {"category": "quality"},
        ],
        "tone": [{"source": "first", "attribute": "tone", "low": 0, "high": 1}],
        "verbosity": [{"derived": "log_characters", "low": 2, "high": 6}],
    }
    path.write_text(json.dumps(objectives))
    return path
