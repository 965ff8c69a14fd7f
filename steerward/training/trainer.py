"""transformers' Trainer over a mixture: our steps, our learning rates, losses on held-out rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from steerward.protocol.errors import DatasetRefused
from steerward.training.config import BackboneConfig
from steerward.training.mixture import Mixture, StepSampler
from steerward.training.multitask import MultiTaskModel


class MixtureTrainer(Trainer):
    """Draws its steps from a mixture, and logs every part of the loss.

    Args:
        model: To be trained.
        mixture: Rows to train on, and those held out.
        config: Of the run.
        runs: Folder for its checkpoints.
    """

    def __init__(
        self, model: MultiTaskModel, mixture: Mixture, config: BackboneConfig, runs: Path
    ) -> None:
        self._validation = StepSampler(
            mixture,
            config,
            rank=0,
            processes=1,
            steps=config.validation_steps,
            from_held_out=True,
        )
        is_validated = len(self._validation) > 0 and not self._validation.is_empty
        arguments = TrainingArguments(
            output_dir=str(runs),
            max_steps=config.steps,
            per_device_train_batch_size=1,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            lr_scheduler_type="cosine",
            warmup_steps=round(config.warmup_share * config.steps),
            max_grad_norm=1.0,
            adam_beta2=0.98,
            bf16=_uses_bfloat16(config, model.backbone.device),
            use_cpu=model.backbone.device.type == "cpu",
            logging_steps=50,
            eval_strategy="steps" if is_validated else "no",
            eval_steps=config.checkpoint_steps,
            save_steps=config.checkpoint_steps,
            save_total_limit=2,
            report_to=[],
            seed=config.seed,
            remove_unused_columns=False,
            label_names=[],
            ddp_find_unused_parameters=False,
        )
        super().__init__(model=model, args=arguments, train_dataset=mixture, eval_dataset=mixture)
        self._mixture = mixture
        self._config = config
        self._parts: dict[str, list[float]] = {}

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Return our own steps; each process draws its own rows."""
        sampler = StepSampler(
            self._mixture,
            self._config,
            rank=self.args.process_index,
            processes=self.args.world_size,
        )
        if sampler.is_empty:
            raise DatasetRefused(
                "a training step would hold nothing: of the rows, "
                f"{self._mixture.left_out} are over max_tokens or rate no objective, "
                f"validation_share {self._config.validation_share} holds others out; a step draws "
                f"{self._config.pairs_per_step} pairs and {self._config.rated_per_step} ratings"
            )
        return DataLoader(self._mixture, batch_sampler=sampler, collate_fn=self._mixture.collate)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Return AdamW with the heads' own rate, and decay on matrices only."""
        del model  # The bare model's names tell backbone and heads apart.
        config = self._config
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in cast("nn.Module", self.model).named_parameters():
            if not parameter.requires_grad:
                continue
            is_backbone = name.startswith("backbone.")
            rate = config.learning_rate if is_backbone else config.head_learning_rate
            is_matrix = parameter.dim() > 1 and "embedding" not in name
            decay = config.weight_decay if is_matrix else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
        self.optimizer = torch.optim.AdamW(
            [{"params": p, "lr": lr, "weight_decay": wd} for (lr, wd), p in groups.items()],
            betas=(0.9, self.args.adam_beta2),
        )
        return self.optimizer

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *_: Any, **__: Any) -> Any:
        """Return the loss of a step, and keep its parts for the log."""
        outputs = model(**inputs)
        for name, value in outputs.items():
            self._parts.setdefault(name, []).append(float(value.detach()))
        return outputs["loss"]

    @torch.no_grad()
    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Return and log the losses on held-out prompts, the same steps every time."""
        model = cast("nn.Module", self.model).eval()
        parts: dict[str, list[float]] = {}
        for keys in self._validation:
            step = self._prepare_inputs(self._mixture.collate(keys))
            for name, value in model(**step).items():
                parts.setdefault(name, []).append(float(value))
        means = {f"eval_{name}": sum(found) / len(found) for name, found in parts.items()}
        super().log(dict(means))
        return means

    def log(self, logs: dict[str, float], *arguments: Any, **options: Any) -> None:
        """Add the parts of the loss to what is logged."""
        parts = {name: sum(v) / len(v) for name, v in self._parts.items() if v and name != "loss"}
        self._parts.clear()
        super().log({**logs, **parts}, *arguments, **options)


def _uses_bfloat16(config: BackboneConfig, device: torch.device) -> bool:
    if config.compute_dtype != "auto":
        return config.compute_dtype == "bfloat16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    # Processors without matrix tiles multiply bfloat16 more slowly than float32.
    return torch.cpu._is_amx_tile_supported()
