"""Tiny checkpoints with random weights, written as users' files are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PretrainedConfig

from tests.golden_cases import GOLDEN

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def copy_tokenizer(folder: Path) -> None:
    """Put the golden tokenizer, 1,024 tokens, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copy(GOLDEN / "armorm" / name, folder / name)


def copy_with_other_heads(folder: Path) -> Path:
    """Write the golden ArmoRM with other heads: all its rewards are -2 times as large."""
    shutil.copytree(GOLDEN / "armorm", folder)

    def change(tensors: dict[str, Tensor]) -> None:
        tensors["regression_layer.weight"] *= -2.0

    edit_tensors(folder, change)
    return folder


def edit_tensors(folder: Path, edit: Callable[[dict[str, Tensor]], None]) -> None:
    """Change the tensors of a checkpoint in place."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def edit_config(folder: Path, **changes: Any) -> None:
    """Change keys of a checkpoint's config.json; None removes one."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.update(changes)
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def save_sequence_classifier(
    folder: Path,
    config: PretrainedConfig,
    *,
    seed: int = 0,
    labels: Mapping[int, str] | None = None,
) -> Any:
    """Write a sequence classifier with random weights; return it as transformers has it."""
    if labels is not None:
        config.id2label = dict(labels)
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    model.save_pretrained(folder)
    copy_tokenizer(folder)
    return model
