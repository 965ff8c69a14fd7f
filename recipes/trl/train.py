"""GRPO on the score of a server; the objectives are logged and weigh nothing."""

from __future__ import annotations

import argparse
import os
from typing import Any

import torch
from datasets import load_dataset
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from steerward.clients.trl import reward_funcs


def functions(url: str) -> list[Any]:
    """Return the columns of a server, with the key of the environment: flags show in `ps`."""
    return reward_funcs(url, api_key=os.environ.get("STEERWARD_API_KEY"), asynchronous=True)


def main() -> None:
    """Train by the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, help="JSON lines with a prompt each")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--output", default="grpo")
    given = parser.parse_args()
    columns = functions(given.url)
    trainer = GRPOTrainer(
        model=given.model,
        reward_funcs=columns,
        args=GRPOConfig(
            output_dir=given.output,
            max_steps=given.steps,
            num_generations=8,
            per_device_train_batch_size=8,
            # The first column is the score.
            reward_weights=[1.0, *([0.0] * (len(columns) - 1))],
            # TRL's default wants a GPU with bfloat16.
            use_cpu=not torch.cuda.is_available(),
            bf16=torch.cuda.is_available(),
            logging_steps=1,
            report_to="none",
        ),
        train_dataset=load_dataset("json", data_files=given.data, split="train"),
    )
    trainer.train()


if __name__ == "__main__":
    main()
