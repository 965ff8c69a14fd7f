"""Settings of a run of MAPL as TRL's trainer takes them."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from trl.trainer.reward_config import RewardConfig

from steerward.protocol.errors import InvalidRequest
from steerward.training.align.mapl.settings import MaplConfig
from steerward.training.sft_policy import uses_bfloat16

# transformers renamed it in 5.23 and warns of the old name.
_RECOMPUTE = next(
    name
    for name in ("activation_checkpointing", "gradient_checkpointing")
    if name in {field.name for field in dataclasses.fields(RewardConfig)}
)


def trainer_settings(settings: MaplConfig, runs: Path, *, num_rows: int) -> RewardConfig:
    """Return the settings of TRL's trainer.

    Args:
        settings: Of the run.
        runs: Folder for checkpoints.
        num_rows: Rows of an epoch.

    Raises:
        InvalidRequest: If the batch cannot be shared out evenly, or there are too few rows for one.
    """
    processes = PartialState()
    device = processes.device
    assert isinstance(device, torch.device)
    micro = settings.micro_batch_size or max(1, settings.batch_size // processes.num_processes)
    together = micro * processes.num_processes
    if settings.batch_size % together:
        raise InvalidRequest(
            f"batch_size {settings.batch_size} is no multiple of micro_batch_size {micro} times "
            f"{processes.num_processes} processes; change one of them"
        )
    if num_rows < settings.batch_size:
        raise InvalidRequest(
            f"there are {num_rows} rows, fewer than batch_size {settings.batch_size}; lower it or "
            "give more pairs"
        )
    recompute: dict[str, Any] = {_RECOMPUTE: False}
    return RewardConfig(
        output_dir=str(runs),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=settings.batch_size // together,
        # A batch of few rows would count as much as a whole one.
        dataloader_drop_last=True,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        max_grad_norm=1.0,
        max_length=None,
        bf16=uses_bfloat16(device),
        use_cpu=device.type == "cpu",
        **recompute,
        logging_steps=settings.logging_steps,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=settings.checkpoint_steps,
        save_total_limit=None,  # `mark_complete` deletes the older ones, when it is safe.
        report_to=settings.report_to,
        disable_tqdm=not sys.stderr.isatty(),
        seed=settings.seed,
    )
