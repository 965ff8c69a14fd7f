"""Pairs of our own, settings, and trainers of a tiny policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.dpo_config import DPOConfig

from steerward.training.align.modpo.loss import Tradeoff
from steerward.training.align.modpo.trainer import MODPOTrainer

_ROWS = [
    ("Hello?", "I am fine, and you?", "no"),
    ("Tell me about rainbows.", "Light splits in drops.", "Drops."),
    ("What is quick?", "The quick brown fox jumps.", "A dog jumps over the lazy dog."),
    ("0 1 2?", "3", "3 4 5 6 7"),
    ("Who?", "Me.", "You, and what about me?"),
    ("And water?", "Water.", "In drops of water, light splits."),
]
TRADEOFF = Tradeoff(("helpfulness", "brevity", "safety"), (0.5, 0.3, 0.2))
BETA = 0.1
TRAINING: dict[str, Any] = {
    "beta": BETA,
    "max_steps": 2,
    "per_device_train_batch_size": 3,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "save_strategy": "steps",
    "save_steps": 1,
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "disable_tqdm": True,
    "activation_checkpointing": False,
    "max_length": None,
}
"""Settings of a short training on the CPU, with a checkpoint each step."""


def pairs(*, margins: int = 2, conversational: bool = True) -> Dataset:
    """Return six pairs, with margins that are drawn by a seed."""
    rows = []
    for prompt, chosen, rejected in _ROWS:
        texts = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
        if conversational:
            rows.append({k: [{"role": roles[k], "content": v}] for k, v in texts.items()})
        else:
            rows.append(texts)
    found = Dataset.from_list(rows)
    if margins:
        numbers = torch.Generator().manual_seed(0)
        for column in ("margin_chosen", "margin_rejected"):
            drawn = torch.randn(len(rows), margins, generator=numbers)
            found = found.add_column(column, drawn.tolist())  # pyright: ignore
    return found


def settings(folder: Path, **changes: Any) -> DPOConfig:
    """Return those settings without checkpoints, but for changes."""
    given = {**TRAINING, "output_dir": str(folder), "save_strategy": "no", **changes}
    return DPOConfig(**given)


def lora() -> LoraConfig:
    """Return a small adapter that is no identity at the start."""
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=4,
        target_modules=["q_proj", "v_proj"],
        lora_dropout=0.0,
        init_lora_weights=False,
    )


def parts(policy: Path) -> dict[str, Any]:
    """Return model and tokenizer of a policy, as trainers take them."""
    return {
        "model": AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32),
        "processing_class": AutoTokenizer.from_pretrained(policy),
    }


def trainer(
    policy: Path, folder: Path, *, tradeoff: Tradeoff = TRADEOFF, data: Any = None, **changes: Any
) -> Any:
    """Return a `MODPOTrainer` of the tiny policy."""
    more = {key: changes.pop(key) for key in ("peft_config", "eval_dataset") if key in changes}
    return MODPOTrainer(
        tradeoff=tradeoff,
        args=settings(folder, **changes),
        train_dataset=pairs() if data is None else data,
        **parts(policy),
        **more,
    )


def perturb(model: Any, *, seed: int = 1) -> None:
    """Move all weights that are trained, so that policy and reference differ."""
    numbers = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn(parameter.shape, generator=numbers)
