"""The smallest run of a trainer of TRL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoTokenizer

from tests.policies import save_policy


def trainer_of(
    kind: Any, config: Any, folder: Path, functions: list[Any], columns: dict[str, list[Any]]
) -> Any:
    """Return a trainer of a tiny policy, on a CPU, that logs each step and saves nothing.

    Args:
        kind: GRPOTrainer or its like.
        config: A function of further settings that gives the trainer's own.
        folder: To be filled.
        functions: Rewards.
        columns: Of the data, `prompt` among them.
    """
    policy = save_policy(folder / "policy", rule=None)
    return kind(
        model=str(policy),
        reward_funcs=functions,
        args=config(
            output_dir=str(folder / "run"),
            per_device_train_batch_size=4,
            num_generations=2,
            learning_rate=1e-3,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
            activation_checkpointing=False,
        ),
        train_dataset=Dataset.from_dict(columns),
        processing_class=AutoTokenizer.from_pretrained(policy, padding_side="left"),
    )
