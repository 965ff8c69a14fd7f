"""TRL's trainer of reward models with MAPL's loss over original, intra and inter rows.

Intra rows alone need nothing of this: to TRL's own trainer they are pairs without a prompt column,
see `mapl_batch.reward_columns`. Here the rewards of all conversations come from one forward pass,
and the rows get their losses of these, and their weights. What TRL logs of pairs is logged of
original pairs alone.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from steerward.protocol.errors import InvalidRequest
from steerward.training.align.mapl.batch import COLUMNS, Collator, check_columns, without_parts
from steerward.training.align.mapl.loss import LAMBDA_INTER, LAMBDA_INTRA, part_weights, row_gaps
from steerward.training.align.mapl.metrics import of_pairs, part_metrics

# TRL's names for what is logged of original pairs.
_OF_PAIRS = {"accuracy": "accuracy", "margin": "margin"}
_LEFT_OUT = {
    "center_rewards_coefficient": "MAPL's loss has no such term",
    # TRL would leave out rows without a word, and the weights would be those of other rows.
    "max_length": "rows that are too long are left out and counted by encode_rows",
}


class MaplRewardTrainer(RewardTrainer):
    """Trains a reward model by L_preference + lambda_intra * L_intra + lambda_inter * L_inter.

    Each part's loss, accuracy and margin is logged under its own name. Losses of evaluations weigh
    the parts as rows of the training set are weighed.

    Args:
        lambda_intra: Weight of intra rows together; ours.
        lambda_inter: Weight of inter rows together; ours.
        **options: TRL's. `train_dataset` and `eval_dataset` are made by `mapl_batch.encode_rows`;
            `processing_class` has a pad token that no conversation ends in; `args` are needed.

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
        if tokenizer.pad_token_id is None:
            raise InvalidRequest(
                "the tokenizer has no pad token; set one that ends no conversation"
            )
        super().__init__(data_collator=Collator(tokenizer.pad_token_id), **options)

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = list(COLUMNS)

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the weighted mean of the rows' losses."""
        del num_items_in_batch
        read, parts_N, directions_N = without_parts(inputs)
        outputs = model(**read, use_cache=False)
        rewards = outputs.logits.squeeze(-1)
        exact = torch.promote_types(rewards.dtype, torch.float32)
        chosen_R, rejected_R = rewards.to(exact).chunk(2)
        gaps_N = row_gaps(chosen_R, rejected_R, parts_N=parts_N, directions_N=directions_N)
        losses_N = -logsigmoid(gaps_N)
        self._log_batch(losses_N, gaps_N, parts_N=parts_N, mask=read["attention_mask"])
        loss = (self._part_weights.to(losses_N)[parts_N] * losses_N).mean()
        return (loss, outputs) if return_outputs else loss

    def _log_batch(
        self, losses_N: Tensor, gaps_N: Tensor, *, parts_N: Tensor, mask: Tensor
    ) -> None:
        model: Any = self.model
        gather: Any = self.accelerator.gather
        tokens: Any = self.accelerator.gather_for_metrics(mask.sum())
        size: Any = self._tp_size
        if model.training:
            self._total_train_tokens += int(tokens.sum()) // size
        metrics = self._metrics["train" if model.training else "eval"]
        metrics["num_tokens"] = [self._total_train_tokens]
        found = part_metrics(losses_N, gaps_N, parts_N=parts_N, gather=gather)
        for name, value in (found | of_pairs(found, _OF_PAIRS)).items():
            metrics[name].append(value)


def _check_options(args: RewardConfig) -> None:
    for name, reason in _LEFT_OUT.items():
        given = getattr(args, name)
        if given is not None:
            raise InvalidRequest(f"{name} is {given}, and {reason}; set it to None")
