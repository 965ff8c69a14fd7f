"""A tiny policy to fine-tune, and examples for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from steerward.protocol.rsf import TrainingSettings
from steerward.protocol.sft_work import SftJob

ANSWERS = ["I am fine, and what about you?", "Light splits in drops of water."]


def write_examples(path: Path, *, count: int = 20) -> Path:
    """Write conversations whose answers are two sentences by turns, of several lengths."""
    rows = [
        {
            "messages": [
                {"role": "system", "content": f"Maximize helpfulness*100 + verbosity*{i % 3}"},
                {"role": "user", "content": "Tell me about rainbows. " * (1 + i % 3)},
                {"role": "assistant", "content": ANSWERS[i % 2]},
            ]
        }
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sft_job(
    folder: Path, base: Path, *, name: str = "out", start: Path | None = None, **settings: Any
) -> SftJob:
    """Return a job on 20 examples, 5 steps of 4 an epoch unless told otherwise."""
    data = folder / "examples.jsonl"
    return SftJob(
        data=data if data.exists() else write_examples(data),
        base=base,
        start=start,
        out=folder / name,
        work=folder / f"{name}-work",
        seed=3,
        training=TrainingSettings(**{"batch_size": 4, "learning_rate": 1e-2, **settings}),
    )


def tensors(folder: Path, *, name: str = "model.safetensors") -> dict[str, torch.Tensor]:
    return load_file(folder / name)


def equal_tensors(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Return whether all are the same, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def store_in_bfloat16(folder: Path) -> None:
    """Write a policy's weights again, rounded."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(folder)
