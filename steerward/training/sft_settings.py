"""Settings of a fine-tuning as TRL's trainer takes them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from trl.trainer.sft_config import SFTConfig

from steerward.protocol.errors import InvalidRequest
from steerward.protocol.rsf import TrainingSettings
from steerward.protocol.sft_work import SftJob
from steerward.training.sft_policy import uses_bfloat16

_LORA_LEARNING_RATE = 1e-4
# For all weights, at a size; smaller models stand and need larger steps.
_LEARNING_RATE, _AT_PARAMETERS, _POWER = 5e-6, 8e9, 0.7
_HIGHEST_LEARNING_RATE = 2e-3
# Models below keep what they compute for the backward pass.
RECOMPUTE_FROM_PARAMETERS = 1_000_000_000
# transformers renamed it in 5.23 and warns of the old name.
RECOMPUTE = next(
    name
    for name in ("activation_checkpointing", "gradient_checkpointing")
    if name in {field.name for field in dataclasses.fields(SFTConfig)}
)


def default_learning_rate(settings: TrainingSettings, parameters: int) -> float:
    """Return the peak that suits a model.

    Args:
        settings: Where one that is set goes before.
        parameters: Of the whole model.
    """
    if settings.learning_rate is not None:
        return settings.learning_rate
    if settings.method == "lora":
        return _LORA_LEARNING_RATE
    scaled = _LEARNING_RATE * (_AT_PARAMETERS / parameters) ** _POWER
    return min(scaled, _HIGHEST_LEARNING_RATE)


def device_of(processes: PartialState) -> torch.device:
    """Return where this process computes."""
    assert isinstance(processes.device, torch.device)
    return processes.device


def trainer_settings(
    job: SftJob, runs: Path, *, num_rows: int, parameters: int, processes: PartialState
) -> SFTConfig:
    """Return the settings of TRL's trainer.

    Args:
        job: What is given.
        runs: Folder for checkpoints.
        num_rows: Examples of all epochs.
        parameters: Of the whole model.
        processes: That train together.

    Raises:
        InvalidRequest: If the batch cannot be shared out evenly.
    """
    settings, device = job.training, device_of(processes)
    micro = micro_batch(settings, processes.num_processes)
    repeats = settings.batch_size // (micro * processes.num_processes)
    steps = math.ceil(math.ceil(math.ceil(num_rows / micro) / processes.num_processes) / repeats)
    recompute: dict[str, Any] = {RECOMPUTE: parameters >= RECOMPUTE_FROM_PARAMETERS}
    return SFTConfig(
        output_dir=str(runs),
        num_train_epochs=1,  # The rows are those of all epochs.
        train_sampling_strategy="sequential",
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=repeats,
        learning_rate=default_learning_rate(settings, parameters),
        lr_scheduler_type="linear",
        warmup_steps=int(settings.warmup_share * steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=1.0,
        max_length=None,
        packing=False,
        bf16=uses_bfloat16(device),
        use_cpu=device.type == "cpu",
        **recompute,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=settings.checkpoint_steps,
        save_total_limit=None,  # `mark_complete` deletes the older ones, when it is safe.
        save_only_model=False,
        report_to=[],
        disable_tqdm=True,
        seed=job.seed % 2**32,
    )


def micro_batch(settings: TrainingSettings, processes: int) -> int:
    """Return the completions of one forward pass on each device.

    Raises:
        InvalidRequest: If the batch cannot be shared out evenly.
    """
    if settings.batch_size % processes:
        raise InvalidRequest(
            f"batch_size {settings.batch_size} cannot be shared out over {processes} processes; "
            f"make it a multiple of {processes}"
        )
    micro = settings.micro_batch_size or settings.batch_size // processes
    if settings.batch_size % (micro * processes):
        raise InvalidRequest(
            f"batch_size {settings.batch_size} is no multiple of micro_batch_size {micro} times "
            f"{processes} processes; change one of them"
        )
    return micro
