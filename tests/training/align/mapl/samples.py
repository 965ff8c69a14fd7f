"""A few rows of every part, and models that are small enough to train in a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from steerward.models.chat import ChatEncoder
from steerward.training.align.mapl.batch import Encoder
from steerward.training.align.mapl.rows import InterRow, IntraRow, Turns
from steerward.training.align.rows import PairRow


def prompt(text: str) -> Turns:
    return ({"role": "user", "content": text},)


PAIRS = [
    PairRow(prompt("Tell me about rainbows."), "Light splits in drops.", "No.", {}),
    PairRow(prompt("Hello, how are you?"), "I am fine, and you?", "Go away from me, dog!", {}),
]
# What a row says of instructions is checked where rows are built, and not where they are learned.
INTRA = [
    IntraRow(prompt("Be brief."), prompt("Be long, and about dogs."), "I am fine.", (), ()),
    IntraRow(prompt("Say much about water."), prompt("Say no word."), "Drops of water.", (), ()),
]
INTER = [
    InterRow(pair.messages, prompt(f"{pair.messages[0]['content']} {more}"), *ends, direction, ())
    for pair, more, direction, ends in zip(
        PAIRS,
        ("Use ten words.", "Be rude."),
        (1, -1),
        ((pair.chosen, pair.rejected) for pair in PAIRS),
        strict=True,
    )
]
ROWS = [INTER[0], PAIRS[0], INTRA[0], INTER[1], INTRA[1], PAIRS[1]]


def load_tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def load_reward_model(folder: Path, *, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1).eval()


def reward_encoder(folder: Path, *, max_tokens: int = 256) -> Encoder:
    return Encoder(ChatEncoder(load_tokenizer(folder)), max_tokens=max_tokens)


def policy_encoder(folder: Path, *, max_tokens: int = 256) -> Encoder:
    tokenizer = load_tokenizer(folder)
    return Encoder(
        ChatEncoder(tokenizer), max_tokens=max_tokens, end_tokens=[tokenizer.eos_token_id]
    )


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def options(folder: Path) -> dict[str, Any]:
    """Return settings that both trainers take."""
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": 6,
        "per_device_eval_batch_size": 6,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "activation_checkpointing": False,
    }
