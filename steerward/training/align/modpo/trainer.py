"""MODPO in TRL: its DPO trainer with beta' and a shifted reference, and margins in the batch.

The loss is TRL's own. What is new is the edit of two tensors before it; see `modpo`.

Axis legend: N pairs, K objectives beside that of the pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from steerward.protocol.errors import InvalidRequest, NonFiniteScore
from steerward.training.align.modpo.loss import (
    Tradeoff,
    check_losses,
    shifted_reference,
    weighted_margins,
)
from steerward.training.align.modpo.margins import SIDES, check_margins, margin_row

REFERENCE_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
"""Of TRL: log-probabilities of the reference, where they are computed beforehand."""


class MODPOTrainer(DPOTrainer):
    """DPO on pairs of one objective, with the rewards of others as margins (arXiv:2310.03708).

    The logs hold rewards as the paper's code has them, (1 / w_k)(beta * logratio - w_-k . r), and
    `modpo/margin`, the mean of |w_-k . D_r|, beside `modpo/implicit`, that of |beta * D_pi|: where
    one dwarfs the other, the weights do nothing.

    With `precompute_ref_log_probs`, a data set that has the columns of `REFERENCE_COLUMNS` already
    is taken as it is.

    Args:
        tradeoff: Weights of all objectives.
        args: `beta` is that of the paper; it is divided by w_k here.
        train_dataset: Pairs with the columns of margins, see `with_margins`.
        eval_dataset: Such pairs too, or several data sets of them by name.
        settings: Everything else that `DPOTrainer` takes.

    Raises:
        InvalidRequest: If the loss cannot carry margins.
        DatasetRefused: If a pair lacks a margin.
    """

    def __init__(
        self,
        *,
        tradeoff: Tradeoff,
        args: DPOConfig,
        train_dataset: Any,
        eval_dataset: Any = None,
        **settings: Any,
    ) -> None:
        check_losses(list(args.loss_type), divergence=args.f_divergence_type)
        _check(train_dataset, tradeoff, "training")
        many: Any = eval_dataset
        if not isinstance(many, Mapping):
            many = {"evaluation": eval_dataset}
        for name, pairs in many.items():
            _check(pairs, tradeoff, str(name))
        self.tradeoff = tradeoff
        super().__init__(
            args=args, train_dataset=train_dataset, eval_dataset=eval_dataset, **settings
        )
        # What reads the reference in TRL knows no margins: they join when it is known.
        self.plain_collator = self.data_collator
        self.data_collator = MarginCollator(self.plain_collator, len(tradeoff.others))
        self.paper_beta = self.beta
        self.beta = tradeoff.beta(self.paper_beta)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        columns = self._signature_columns or []
        self._signature_columns = [*columns, *(c for c in SIDES.values() if c not in columns)]

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        if set(REFERENCE_COLUMNS) <= set(dataset.column_names or ()):
            return dataset
        collator = self.data_collator
        self.data_collator = getattr(self, "plain_collator", collator)
        try:
            return super()._precompute_ref_logps(dataset, name, batch_size)
        finally:
            self.data_collator = collator

    def _compute_loss(self, model: Any, inputs: Any, return_outputs: bool) -> Any:
        inputs = dict(inputs)
        margins = {side: inputs.pop(column) for side, column in SIDES.items()}
        reference = self._reference(inputs)
        for column, (side, reference_N) in zip(REFERENCE_COLUMNS, reference.items(), strict=True):
            inputs[column] = shifted_reference(
                reference_N, margins[side], tradeoff=self.tradeoff, beta=self.paper_beta
            )
        with _seen_log_probs(model) as seen, self._reference_is_given():
            result = super()._compute_loss(model, inputs, return_outputs)
        self._log_terms(seen, inputs, reference, margins)
        return result

    def _reference(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the log-probabilities of the reference by side."""
        if self.precompute_ref_logps:
            found = tuple(inputs[column] for column in REFERENCE_COLUMNS)
        else:
            found = self.compute_ref_log_probs(self.ref_model or self.model, inputs)
        return dict(zip(SIDES, found, strict=True))

    @contextmanager
    def _reference_is_given(self) -> Iterator[None]:
        was_given, self.precompute_ref_logps = self.precompute_ref_logps, True
        try:
            yield
        finally:
            self.precompute_ref_logps = was_given

    def _log_terms(
        self,
        seen: list[Tensor],
        inputs: Mapping[str, Any],
        reference: Mapping[str, Tensor],
        margins: Mapping[str, Tensor],
    ) -> None:
        """Log how large both terms of the logit are, before w_k divides them."""
        mask = inputs["completion_mask"][:, 1:]
        log_probs = (seen[0][:, -mask.shape[1] :] * mask).sum(dim=1)
        chosen_N, rejected_N = log_probs.chunk(2)
        implicit_N = chosen_N - rejected_N - (reference["chosen"] - reference["rejected"])
        differences_NK = margins["chosen"] - margins["rejected"]
        terms = {
            "implicit": self.paper_beta * implicit_N,
            "margin": weighted_margins(differences_NK, self.tradeoff),
        }
        for k, name in enumerate(self.tradeoff.margin_names):
            terms[f"margin/{name}"] = differences_NK[:, k]
        model: Any = self.model
        mode = "train" if model.training else "eval"
        for name, values_N in terms.items():
            mean = self.accelerator.gather(values_N.abs()).mean().item()  # pyright: ignore
            self._metrics[mode][f"modpo/{name}"].append(mean)


@dataclass(frozen=True, slots=True)
class MarginCollator:
    """A collator of pairs that adds their margins, (N, K) in float32.

    Args:
        collator: Of the pairs.
        num_margins: K; where it is 0, rows need no margins.
    """

    collator: Any
    num_margins: int

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a batch.

        Raises:
            DatasetRefused: If a pair lacks a margin.
            NonFiniteScore: If one does not fit into float32.
        """
        batch = dict(self.collator(examples))
        for column in SIDES.values():
            rows = [self._row(one, column, place) for place, one in enumerate(examples)]
            margins_NK = torch.tensor(rows, dtype=torch.float32).reshape(len(rows), -1)
            if not bool(torch.isfinite(margins_NK).all()):
                raise NonFiniteScore(f"{column} holds a number that does not fit into float32")
            batch[column] = margins_NK
        return batch

    def _row(self, example: Mapping[str, Any], column: str, place: int) -> list[float]:
        if not self.num_margins:
            return []
        where = f"pair {place} of the batch: {column}"
        return margin_row(example.get(column), num=self.num_margins, place=where)


def modpo_config(folder: Path, settings: Mapping[str, Any]) -> DPOConfig:
    """Return settings of a training whose data hold the reference's log-probabilities.

    Args:
        folder: For checkpoints.
        settings: Fields of `DPOConfig`.

    Raises:
        InvalidRequest: If there is no such field, or its value is refused.
    """
    try:
        return DPOConfig(output_dir=str(folder), **{**settings, "precompute_ref_log_probs": True})
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"TRL refuses the settings: {error}", param="training") from error


def _check(pairs: Any, tradeoff: Tradeoff, title: str) -> None:
    # What streams is checked batch by batch.
    if isinstance(pairs, Dataset):
        check_margins(pairs, names=tradeoff.margin_names, title=title)


@contextmanager
def _seen_log_probs(model: Any) -> Iterator[list[Tensor]]:
    """Collect what the model says of the tokens, without a pass of our own."""
    seen: list[Tensor] = []

    def see(module: Any, given: Any, output: Any) -> None:
        del module, given
        found = getattr(output, "log_probs", None)
        if found is not None:
            seen.append(found.detach())

    handle = model.register_forward_hook(see)
    try:
        yield seen
    finally:
        handle.remove()
    if not seen:
        raise InvalidRequest("the model gave no log_probs; this version of TRL is not known")
