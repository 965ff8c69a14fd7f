"""TRL's trainer of DPO with MAPL's loss over original, intra and inter rows.

TRL has one prompt a row and computes log-probabilities of two completions behind it. Rows here come
as token ids with a prompt for every conversation. TRL's loss runs on them as on a batch of pairs;
the log-probabilities that it asks the policy for are kept, and the rows get their losses of them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from steerward.protocol.errors import InvalidRequest
from steerward.training.align.mapl.batch import COLUMNS, Collator, check_columns, without_parts
from steerward.training.align.mapl.loss import (
    LAMBDA_INTER,
    LAMBDA_INTRA,
    implicit_rewards,
    part_weights,
    row_gaps,
)
from steerward.training.align.mapl.metrics import part_metrics, replace_last

# TRL's names for what is logged of original pairs.
_OF_PAIRS = {"accuracy": "rewards/accuracies", "margin": "rewards/margins"}
# Options of TRL's whose terms MAPL's loss does not have, with the value that leaves them out.
_LEFT_OUT: dict[str, Any] = {
    "loss_type": ["sigmoid"],
    "loss_weights": None,
    "f_divergence_type": "reverse_kl",
    "ld_alpha": None,
    "use_weighting": False,
    # Their place is in columns of pairs; inter rows are two pairs.
    "precompute_ref_log_probs": False,
}


class MaplDPOTrainer(DPOTrainer):
    """Trains a policy by L_preference + lambda_intra * L_intra + lambda_inter * L_inter.

    The rewards are implicit, beta * log[pi/pi_ref]; see `mapl` on what of them cancels and what
    does not. Each part's loss, accuracy and margin is logged under its own name.

    Args:
        lambda_intra: Weight of intra rows together; ours.
        lambda_inter: Weight of inter rows together; ours.
        **options: TRL's. `train_dataset` and `eval_dataset` are made by `mapl_batch.encode_rows`;
            `args` are needed.

    Raises:
        InvalidRequest: If a weight is none, a part that counts has no rows, or an option does not
            go together with MAPL.
    """

    def __init__(
        self,
        *,
        lambda_intra: float = LAMBDA_INTRA,
        lambda_inter: float = LAMBDA_INTER,
        **options: Any,
    ) -> None:
        rows, tokenizer = options["train_dataset"], options["processing_class"]
        check_columns(rows.column_names)
        self._part_weights = part_weights(
            Counter(rows["part"]), lambda_intra=lambda_intra, lambda_inter=lambda_inter
        )
        _check_options(options["args"])
        padding = tokenizer.pad_token_id
        # Nothing is read of what is padded, so any token will do.
        padding = tokenizer.eos_token_id if padding is None else padding
        super().__init__(data_collator=Collator(padding, has_completions=True), **options)

    def _prepare_dataset(
        self,
        dataset: Any,
        processing_class: Any,  # noqa: ARG002
        args: Any,  # noqa: ARG002
        dataset_name: str,  # noqa: ARG002
    ) -> Any:
        check_columns(dataset.column_names)
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = list(COLUMNS)

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        """Return the weighted mean of the rows' losses."""
        read, parts_N, directions_N = without_parts(inputs)
        chosen_reference_R, rejected_reference_R = self.compute_ref_log_probs(
            self.ref_model or model, read
        )
        read["ref_chosen_logps"] = chosen_reference_R
        read["ref_rejected_logps"] = rejected_reference_R
        kept = _Kept(model)
        self.precompute_ref_logps = True
        try:
            found = super()._compute_loss(kept, read, return_outputs)
        finally:
            self.precompute_ref_logps = False
        chosen_R, rejected_R = implicit_rewards(
            kept.sequence_logps(read["completion_mask"]),
            torch.cat([chosen_reference_R, rejected_reference_R]),
            beta=self.beta,
        ).chunk(2)
        gaps_N = row_gaps(chosen_R, rejected_R, parts_N=parts_N, directions_N=directions_N)
        losses_N = -logsigmoid(gaps_N)
        self._log_parts(losses_N, gaps_N, parts_N)
        loss = (self._part_weights.to(losses_N)[parts_N] * losses_N).mean()
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * kept.outputs.aux_loss
        return (loss, found[1]) if return_outputs else loss

    def _log_parts(self, losses_N: Tensor, gaps_N: Tensor, parts_N: Tensor) -> None:
        model: Any = self.model
        gather: Any = self.accelerator.gather
        found = part_metrics(losses_N, gaps_N, parts_N=parts_N, gather=gather)
        replace_last(self._metrics["train" if model.training else "eval"], found, trl=_OF_PAIRS)


class _Kept:
    """A model whose first answer is kept."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.outputs: Any = None

    def __call__(self, **inputs: Any) -> Any:
        outputs = self._model(**inputs)
        if self.outputs is None:
            self.outputs = outputs
        return outputs

    def sequence_logps(self, completion_mask: Tensor) -> Tensor:
        """Return the log-probability of each completion, as TRL sums it."""
        # Prompt-learning adapters put virtual tokens in front.
        return self.outputs.log_probs[:, -(completion_mask.shape[-1] - 1) :].sum(dim=-1)


def _check_options(args: DPOConfig) -> None:
    for name, value in _LEFT_OUT.items():
        given = getattr(args, name)
        if given != value:
            raise InvalidRequest(
                f"{name} is {given!r}, and MAPL's loss is defined for {value!r}; leave it out"
            )
