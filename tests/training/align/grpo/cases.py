"""A tiny policy under the multi-objective trainers, with rewards that are given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoTokenizer
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.rloo_config import RLOOConfig

from steerward.training.align.grpo.trainer import (
    MultiObjectiveGRPOTrainer,
    MultiObjectiveRLOOTrainer,
)
from tests.policies import save_policy

PROMPTS = ["Tell me about rainbows.", "Hello, how are you?"]
CONFIGS: dict[Any, Any] = {
    MultiObjectiveGRPOTrainer: GRPOConfig,
    MultiObjectiveRLOOTrainer: RLOOConfig,
}


def column(name: str, values: Sequence[float | None] | None = None) -> Any:
    """A reward function: values in order of the batch, or something of the completions."""

    def rewards(completions: list[str], completion_ids: list[Any], **_: Any) -> list[float | None]:
        if values is not None:
            return [values[i % len(values)] for i in range(len(completions))]
        if name == "length":
            return [float(len(text)) for text in completions]
        return [float(sum(ids) % 7) for ids in completion_ids]

    rewards.__name__ = name
    return rewards


def trainer_of(
    folder: Path,
    columns: Sequence[Any],
    *,
    kind: Any = MultiObjectiveGRPOTrainer,
    settings: dict[str, Any] | None = None,
    peft_config: Any = None,
    **options: Any,
) -> Any:
    """Return a trainer with a batch of two groups of four."""
    policy = save_policy(folder / "policy", rule=None)
    config = {
        "output_dir": str(folder / "run"),
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 5,
        "max_steps": 2,
        "learning_rate": 1e-3,
        "beta": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
        "activation_checkpointing": False,
        **(settings or {}),
    }
    options.setdefault("weights", {one.__name__: 1.0 for one in columns})
    data = Dataset.from_dict({"prompt": PROMPTS * 4})
    return kind(
        model=str(policy),
        reward_funcs=list(columns),
        args=CONFIGS[kind](**config),
        train_dataset=data,
        eval_dataset=data.select(range(2)),
        processing_class=AutoTokenizer.from_pretrained(policy, padding_side="left"),
        peft_config=peft_config,
        **options,
    )


def batch_of(group_size: int = 4) -> list[dict[str, Any]]:
    """Inputs of one generation: each prompt as often as it has samples."""
    return [{"prompt": prompt} for prompt in PROMPTS for _ in range(group_size)]


def logged(trainer: Any, key: str) -> list[float]:
    """Return what was logged under a key, step by step."""
    return [entry[key] for entry in trainer.state.log_history if key in entry]
