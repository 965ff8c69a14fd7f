"""The loss of fine-tuning a policy: cross-entropy of completions, and a KL divergence if asked.

    loss = mean over tokens of (-log p(token) + kl_coef * KL(p || p_0))

with p the policy, p_0 the policy that the job began with, and tokens those of completions. The
first half is on tensors; the second is TRL's trainer with one method overridden.

Axis legend: N sequences, T tokens of one, C tokens of completions in a batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from trl.trainer.sft_trainer import SFTTrainer

from steerward.training.sft_data import IGNORED


def kl_divergences(logits_CV: Tensor, base_logits_CV: Tensor) -> Tensor:
    """Return KL(p || p_0) of each token over the whole vocabulary, in nats, (C,)."""
    log_p_CV = logits_CV.float().log_softmax(dim=-1)
    log_p0_CV = base_logits_CV.float().log_softmax(dim=-1)
    return (log_p_CV.exp() * (log_p_CV - log_p0_CV)).sum(dim=-1)


def completion_logits(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the logits that predict the tokens of completions, (C, V).

    Args:
        model: A causal language model.
        batch: ``input_ids``, ``attention_mask`` and ``labels``, (N, T) each.
    """
    logits_NTV: Tensor = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
    ).logits
    is_learned_NT = batch["labels"][:, 1:] != IGNORED
    return logits_NTV[:, :-1][is_learned_NT]


class BasePolicy:
    """The policy that the job began with; it does not learn.

    Args:
        frozen: Its model; None where the policy is that with an adapter, which is then left out.
    """

    def __init__(self, frozen: nn.Module | None) -> None:
        self._frozen = frozen

    @torch.no_grad()
    def logits(self, model: nn.Module, batch: Mapping[str, Tensor], *, adapted: Any) -> Tensor:
        """Return its logits for the tokens of completions, (C, V).

        Args:
            model: That learns, as it is called.
            batch: As in `completion_logits`.
            adapted: The model that learns without what its launcher put around it.
        """
        if self._frozen is not None:
            return completion_logits(self._frozen, batch)
        with _evaluating(model), adapted.disable_adapter():
            return completion_logits(model, batch)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@dataclass(slots=True)
class StepSums:
    """What a step adds up while it passes through its batches, over all processes."""

    penalty: float = 0.0
    """Part of the loss that the KL divergence is."""
    tokens: int = 0
    """Of completions."""

    def take(self) -> tuple[float, int]:
        """Return both, and begin the next step."""
        taken = self.penalty, self.tokens
        self.penalty, self.tokens = 0.0, 0
        return taken


class PolicyTrainer(SFTTrainer):
    """TRL's trainer of supervised fine-tuning, with a KL divergence from a base.

    Args:
        base: What the policy is kept near to.
        kl_coef: Weight of the divergence; 0 leaves it out.
        **options: TRL's.
    """

    def __init__(self, *, base: BasePolicy | None, kl_coef: float, **options: Any) -> None:
        super().__init__(**options)
        self._base = base
        self._kl_coef = kl_coef
        self.sums = StepSums()

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the loss of a batch, to the same scale as TRL's: its share in that of a step."""
        penalty = self._penalty(model, inputs, num_items_in_batch)
        found = super().compute_loss(
            model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
        )
        self._count(inputs["labels"], penalty, num_items_in_batch)
        if penalty is None:
            return found
        return (found[0] + penalty, found[1]) if return_outputs else found + penalty

    def _penalty(
        self, model: nn.Module, batch: Mapping[str, Tensor], num_items: Tensor | int | None
    ) -> Tensor | None:
        if not self._kl_coef or self._base is None:
            return None
        adapted = self.accelerator.unwrap_model(model)
        # Before the pass that learns: PEFT lets adapters that it leaves out ask for no gradients.
        base_logits_CV = self._base.logits(model, batch, adapted=adapted)
        kl_C = kl_divergences(completion_logits(model, batch), base_logits_CV)
        share = len(kl_C) if num_items is None else num_items
        penalty = self._kl_coef * kl_C.sum() / torch.as_tensor(share).clamp(min=1)
        if self.args.average_tokens_across_devices and num_items is not None:
            # The tokens are those of all processes, whose gradients are averaged.
            penalty = penalty * self.accelerator.num_processes
        return penalty

    def _count(
        self, labels_NT: Tensor, penalty: Tensor | None, num_items: Tensor | int | None
    ) -> None:
        learned = (labels_NT[:, 1:] != IGNORED).sum()
        part = learned.new_zeros((), dtype=torch.float64)
        if penalty is not None:
            part = penalty.detach().double()
            # Otherwise transformers divides the whole loss so.
            part = part / (self.current_gradient_accumulation_steps if num_items is None else 1)
        sums = self.accelerator.reduce(torch.stack([part, learned.double()]), reduction="sum")
        assert isinstance(sums, Tensor)
        self.sums.penalty += float(sums[0]) / self.accelerator.num_processes
        self.sums.tokens += int(sums[1])
