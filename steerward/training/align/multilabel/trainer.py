"""transformers' Trainer on several labels: the loss over those that are there, and the log.

Axis legend: N rows, K labels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)

from steerward.models.pretrained import load_pretrained
from steerward.protocol.errors import InvalidRequest, TrainingFailed
from steerward.training.align.multilabel.data import LabelledExamples, collate
from steerward.training.align.multilabel.loss import fits, masked_squared_error
from steerward.training.align.multilabel.settings import MultiLabelConfig
from steerward.training.sft_folder import mark_complete

Told = Callable[[int, Mapping[str, float]], None]
"""Takes the step and what is logged of it."""

_HEAD = "score."


class LabelModel:
    """What transformers makes of a causal checkpoint: a regression with named outputs."""

    def __init__(self, names: list[str], *, padding: int) -> None:
        self._names = names
        self._padding = padding

    def from_pretrained(self, folder: Path, *, config: PretrainedConfig, **options: Any) -> Any:
        """Return what `AutoModelForSequenceClassification` returns."""
        config.id2label = dict(enumerate(self._names))
        config.label2id = {name: k for k, name in enumerate(self._names)}
        config.problem_type = "regression"
        config.pad_token_id = self._padding
        config.use_cache = False
        return AutoModelForSequenceClassification.from_pretrained(folder, config=config, **options)


def load_label_model(folder: Path, names: list[str], *, padding: int, seed: int) -> PreTrainedModel:
    """Return a causal checkpoint as a regression model whose outputs are new.

    Raises:
        CheckpointRefused: If it does not load.
    """
    torch.manual_seed(seed)
    return load_pretrained(
        LabelModel(names, padding=padding),
        folder,
        what="start",
        dtype=torch.float32,
        other_keys={"lm_head.weight"},
        may_miss=(_HEAD,),
    )


class MultiLabelTrainer(Trainer):
    """Minimises the masked squared error of all labels of a step.

    Args:
        model: To be trained.
        parts: Rows to learn from, and those held out.
        names: Of the labels.
        weights_K: Of their squared errors.
        config: Of the run.
        runs: Folder for its checkpoints.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        parts: tuple[LabelledExamples, LabelledExamples],
        *,
        names: list[str],
        weights_K: Tensor,
        config: MultiLabelConfig,
        runs: Path,
    ) -> None:
        train, self._held_out = parts
        self._names = names
        self._weights_K = weights_K
        self._config = config
        self._collate = functools.partial(collate, padding=cast("int", model.config.pad_token_id))
        super().__init__(
            model=model,
            args=_arguments(config, runs, num_rows=len(train)),
            train_dataset=cast("Any", train),
            eval_dataset=cast("Any", self._held_out),
            data_collator=cast("Any", self._collate),
        )
        # Our loss is one over the labels of the whole step, so no part of a step is scaled again.
        self.model_accepts_loss_kwargs = True

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor]:
        """Return the parts of a step, and how many labels they have in all processes."""
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = [(~torch.isnan(sample["labels"])).sum() for sample in samples]
        count = torch.stack(counts).sum().to(device)
        return samples, cast("Tensor", self.accelerator.gather(count)).sum()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the part of a step's loss that some of its rows give."""
        outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        loss = masked_squared_error(
            outputs.logits.float(),
            inputs["labels"],
            weights_K=self._weights_K.to(outputs.logits.device),
            count=None if num_items_in_batch is None else torch.as_tensor(num_items_in_batch),
        )
        # Gradients of processes are averaged, and the count is of all of them.
        loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Return AdamW with the outputs' own rate, and decay on matrices only."""
        del model  # The bare model's names tell the outputs apart.
        config = self._config
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in cast("nn.Module", self.model).named_parameters():
            rate = config.head_learning_rate if name.startswith(_HEAD) else config.learning_rate
            decay = config.weight_decay if parameter.dim() > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
        self.optimizer = torch.optim.AdamW(
            [{"params": p, "lr": lr, "weight_decay": wd} for (lr, wd), p in groups.items()]
        )
        return self.optimizer

    @torch.no_grad()
    def predict_held_out(self) -> Tensor:
        """Return the model's outputs for the rows held out."""
        model = self.accelerator.unwrap_model(self.model_wrapped).eval()
        size = self.args.per_device_train_batch_size
        found: list[Tensor] = []
        for first in range(0, len(self._held_out), size):
            rows = [self._held_out[n] for n in range(first, len(self._held_out))[:size]]
            batch = self._collate(rows)
            ids, mask = (batch[key].to(self.args.device) for key in ("input_ids", "attention_mask"))
            found.append(model(input_ids=ids, attention_mask=mask).logits.float().cpu())
        return torch.cat(found)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Return and log error and fit of each label on the rows held out."""
        predicted_NK, labels_NK = self.predict_held_out(), self._held_out.labels_NK
        loss = masked_squared_error(predicted_NK, labels_NK, weights_K=self._weights_K)
        told = {"eval_loss": float(loss)}
        for name, fit in fits(predicted_NK, labels_NK, self._names).items():
            for key in ("r2", "spearman", "mean_absolute_error"):
                if (value := getattr(fit, key)) is not None:
                    told[f"eval_{name}/{key}"] = value
        self.log(dict(told))
        # Without it, the end of an epoch asks for what its last step has had.
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, told)
        return told


def _arguments(config: MultiLabelConfig, runs: Path, *, num_rows: int) -> TrainingArguments:
    processes = PartialState().num_processes
    micro = config.micro_batch_size or max(1, config.batch_size // processes)
    if config.batch_size % (micro * processes):
        raise InvalidRequest(
            f"batch_size {config.batch_size} is no multiple of micro_batch_size {micro} times "
            f"{processes} processes; change one of them"
        )
    steps = math.ceil(num_rows / config.batch_size) * config.epochs
    device = PartialState().device
    assert isinstance(device, torch.device)
    return TrainingArguments(
        output_dir=str(runs),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=config.batch_size // (micro * processes),
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=int(config.warmup_share * steps),
        max_grad_norm=1.0,
        bf16=device.type == "cuda" and torch.cuda.is_bf16_supported(),
        use_cpu=device.type == "cpu",
        logging_steps=config.logging_steps,
        logging_nan_inf_filter=False,
        eval_strategy="steps",
        eval_steps=config.checkpoint_steps,
        save_strategy="steps",
        save_steps=config.checkpoint_steps,
        save_total_limit=None,  # `mark_complete` deletes the older ones, when it is safe.
        report_to=config.report_to,
        seed=config.seed % 2**32,
        remove_unused_columns=False,
        label_names=["labels"],
    )


class Progress(TrainerCallback):
    """Tells of what is logged, stops where the loss is no number, and closes checkpoints."""

    def __init__(self, identity: str, told: Told | None) -> None:
        self._identity = identity
        self._told = told

    def on_log(self, *given: Any, logs: dict[str, Any], **_: Any) -> None:
        """Tell of a step."""
        state: TrainerState = given[1]
        loss = logs.get("loss", 0.0)
        if not math.isfinite(float(loss)):
            raise TrainingFailed(
                f"the loss of step {state.global_step} is {loss}; lower learning_rate"
            )
        if self._told is not None and state.is_world_process_zero:
            numbers = {key: value for key, value in logs.items() if isinstance(value, int | float)}
            self._told(state.global_step, numbers)

    def on_save(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        """Let training go on from here, when every process has written its part."""
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            mark_complete(checkpoint, identity=self._identity)
