"""How far fine-tuning has moved a policy: its KL divergence from where the job began.

Axis legend: C tokens of completions in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from steerward.training.sft_data import Example
from steerward.training.sft_loss import (
    BasePolicy,
    PolicyTrainer,
    completion_logits,
    kl_divergences,
)


@torch.no_grad()
def mean_divergence(trainer: PolicyTrainer, base: BasePolicy, examples: Sequence[Example]) -> float:
    """Return KL(p || p_0) in nats a token, over the tokens of the examples' completions.

    Every process computes all of it: where each holds a part of the weights, they must walk
    through the model together.

    Args:
        trainer: After training.
        base: The policy that the job began with.
        examples: To measure on.
    """
    model: Any = trainer.model_wrapped
    device = trainer.args.device
    adapted = trainer.accelerator.unwrap_model(model)
    size = trainer.args.per_device_train_batch_size
    by_length = sorted(examples, key=lambda example: len(example.ids_T))
    was_training, total, tokens = model.training, 0.0, 0
    model.eval()
    for begin in range(0, len(by_length), size):
        rows = [
            {"input_ids": example.ids_T, "labels": example.labels}
            for example in by_length[begin : begin + size]
        ]
        batch = {key: value.to(device) for key, value in trainer.data_collator(rows).items()}
        with trainer.compute_loss_context_manager():
            base_logits_CV = base.logits(model, batch, adapted=adapted)
            kl_C = kl_divergences(completion_logits(model, batch), base_logits_CV)
        total += float(kl_C.double().sum())
        tokens += len(kl_C)
    model.train(was_training)
    return total / tokens
