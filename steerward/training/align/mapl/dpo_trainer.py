"""TRL's trainer of DPO with MAPL's loss over original, intra and inter rows.

TRL has one prompt a row and computes log-probabilities of two completions behind it. Rows here come
as token ids with a prompt for every conversation, and get their losses of the log-probabilities
that TRL's forward pass gives. What TRL logs of pairs is logged of original pairs alone.

Axis legend: N rows, R rows with the pairs of inter rows without instructions behind them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
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
from steerward.training.align.mapl.metrics import of_pairs, pair_means, part_metrics

# TRL's names for what is logged of original pairs.
_OF_PAIRS = {"accuracy": "rewards/accuracies", "margin": "rewards/margins"}
# Label of a token whose log-probability is not asked for.
_IGNORED = -100
# Options of TRL's whose terms MAPL's loss does not have, with the value that leaves them out.
_LEFT_OUT: dict[str, Any] = {
    "loss_type": ["sigmoid"],
    "loss_weights": None,
    "f_divergence_type": "reverse_kl",
    "ld_alpha": None,
    "use_weighting": False,
    "label_smoothing": 0.0,
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
        reference_logps = torch.cat(self.compute_ref_log_probs(self.ref_model or model, read))
        logps, outputs = self._policy_logps(model, read)
        chosen_R, rejected_R = implicit_rewards(logps, reference_logps, beta=self.beta).chunk(2)
        gaps_N = row_gaps(chosen_R, rejected_R, parts_N=parts_N, directions_N=directions_N)
        losses_N = -logsigmoid(gaps_N)
        chosen_logps_R, rejected_logps_R = logps.chunk(2)
        of_sides = {
            "rewards/chosen": chosen_R,
            "rewards/rejected": rejected_R,
            "logps/chosen": chosen_logps_R,
            "logps/rejected": rejected_logps_R,
        }
        self._log_tokens(read["attention_mask"])
        self._log_parts(losses_N, gaps_N, parts_N=parts_N, of_sides=of_sides)
        loss = (self._part_weights.to(losses_N)[parts_N] * losses_N).mean()
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * outputs.aux_loss
        return (loss, outputs) if return_outputs else loss

    def _policy_logps(self, model: Any, read: dict[str, Any]) -> tuple[Tensor, Any]:
        """Return the log-probability of each completion, and all that the model gave."""
        mask = read["completion_mask"]
        asked = {name: value for name, value in read.items() if name != "completion_mask"}
        if self.aux_loss_enabled:
            asked["output_router_logits"] = True
        labels = read["input_ids"].masked_fill(mask == 0, _IGNORED)
        outputs = model(**asked, labels=labels, fused_lm_head=True, use_cache=False)
        # Prompt-learning adapters put virtual tokens in front.
        return outputs.log_probs[:, -(mask.shape[-1] - 1) :].sum(dim=-1), outputs

    def _log_tokens(self, attention_mask: Tensor) -> None:
        model: Any = self.model
        gathered: Any = self.accelerator.gather_for_metrics(attention_mask.sum())
        size: Any = self._tp_size
        if model.training:
            self._total_train_tokens += int(gathered.sum()) // size
        self._metrics[self._mode]["num_tokens"] = [self._total_train_tokens]

    @property
    def _mode(self) -> str:
        model: Any = self.model
        return "train" if model.training else "eval"

    def _log_parts(
        self,
        losses_N: Tensor,
        gaps_N: Tensor,
        *,
        parts_N: Tensor,
        of_sides: Mapping[str, Tensor],
    ) -> None:
        gather: Any = self.accelerator.gather
        found = part_metrics(losses_N, gaps_N, parts_N=parts_N, gather=gather)
        of_rows = {name: value_R[: len(parts_N)] for name, value_R in of_sides.items()}
        found |= pair_means(of_rows, parts_N=parts_N, gather=gather) | of_pairs(found, _OF_PAIRS)
        for name, value in found.items():
            self._metrics[self._mode][name].append(value)


def _check_options(args: DPOConfig) -> None:
    for name, value in _LEFT_OUT.items():
        given = getattr(args, name)
        if given != value:
            raise InvalidRequest(
                f"{name} is {given!r}, and MAPL's loss is defined for {value!r}; leave it out"
            )
