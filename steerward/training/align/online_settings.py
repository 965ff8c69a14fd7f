"""Settings of a run as TRL's online trainers take them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from steerward.protocol.alignment import OnlineSettings, PolicyTraining, WeightedSettings
from steerward.protocol.errors import InvalidRequest
from steerward.training.align.policies import learning_rate
from steerward.training.sft_policy import uses_bfloat16
from steerward.training.sft_settings import RECOMPUTE, RECOMPUTE_FROM_PARAMETERS


def online_arguments(
    settings: OnlineSettings, runs: Path, *, parameters: int, processes: PartialState
) -> dict[str, Any]:
    """Return what GRPOConfig and RLOOConfig share.

    Args:
        settings: Of the run.
        runs: Folder for checkpoints.
        parameters: Of the whole model.
        processes: That train together.

    Raises:
        InvalidRequest: If the batch cannot be shared out evenly.
    """
    batch = settings.prompts_per_step * settings.group_size
    micro = micro_batch(settings, batch, processes.num_processes)
    steps = settings.steps * settings.updates_per_batch
    # Between two batches: what a run that goes on would draw is not in a checkpoint.
    save_steps = _multiple(settings.checkpoint_steps, settings.updates_per_batch)
    return {
        **shared_arguments(settings, runs, parameters=parameters, processes=processes),
        "max_steps": steps,
        "warmup_steps": int(settings.warmup_share * steps),
        "save_steps": save_steps,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": batch // (micro * processes.num_processes),
        "num_generations": settings.group_size,
        "num_iterations": settings.updates_per_batch,
        "max_completion_length": settings.max_tokens,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        # CGPO limits the divergence of each task in its own way.
        "beta": settings.kl_coef if isinstance(settings, WeightedSettings) else 0.0,
        "epsilon": settings.clip_epsilon,
    }


def shared_arguments(
    settings: PolicyTraining, runs: Path, *, parameters: int, processes: PartialState
) -> dict[str, Any]:
    """Return what all of TRL's trainers share."""
    device = processes.device
    assert isinstance(device, torch.device)
    return {
        "output_dir": str(runs),
        "learning_rate": learning_rate(settings, parameters),
        "lr_scheduler_type": {"constant": "constant_with_warmup"}.get(
            settings.schedule, settings.schedule
        ),
        "weight_decay": settings.weight_decay,
        "max_grad_norm": 1.0,
        "bf16": uses_bfloat16(device),
        "use_cpu": device.type == "cpu",
        RECOMPUTE: parameters >= RECOMPUTE_FROM_PARAMETERS,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_total_limit": None,  # `mark_complete` deletes the older ones, when it is safe.
        "save_only_model": False,
        "report_to": [],
        "disable_tqdm": True,
        "seed": settings.seed,
    }


def micro_batch(settings: PolicyTraining, batch: int, processes: int) -> int:
    """Return the completions of one forward pass on each device.

    Raises:
        InvalidRequest: If the batch cannot be shared out evenly.
    """
    micro = settings.micro_batch_size or math.ceil(batch / processes)
    if batch % (micro * processes):
        raise InvalidRequest(
            f"a batch of {batch} cannot be shared out over {processes} processes and "
            f"{micro} completions in one forward pass (micro_batch_size); change one of them"
        )
    return micro


def _multiple(steps: int, of: int) -> int:
    return math.ceil(steps / of) * of
