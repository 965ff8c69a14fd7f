"""MODPO with one set of weights after another: a front, for the price of its trainings.

Margins and the reference's log-probabilities do not depend on the weights: they are computed once
and kept beside the runs. Each set of weights is trained in a folder of its own, with the same
settings, seed and order of pairs; what is finished is not trained again.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, PreTrainedModel, TrainerCallback

from steerward.models.pretrained import load_pretrained
from steerward.models.source import weight_version
from steerward.protocol.errors import CheckpointRefused, InvalidRequest, brief
from steerward.training.align.modpo.loss import Tradeoff, check_losses
from steerward.training.align.modpo.margins import MarginSource, margin_names, with_margins
from steerward.training.align.modpo.reference_trainer import padded_tokenizer, with_reference
from steerward.training.align.modpo.run import Evaluate, RunFolder, RunLog
from steerward.training.align.modpo.trainer import MODPOTrainer, modpo_config
from steerward.training.align.run_folder import RunWriter
from steerward.training.sft_folder import complete_checkpoint

logger = logging.getLogger(__name__)

# What is the sweep's to set.
_OWN = ("output_dir", "precompute_ref_log_probs")


def sweep(
    tradeoffs: Sequence[Tradeoff],
    *,
    pairs: Dataset,
    sources: Sequence[MarginSource],
    policy: Path,
    out: Path,
    training: Mapping[str, Any],
    adapter: LoraConfig | None = None,
    evaluate: Evaluate | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> list[Path]:
    """Train a policy with each set of weights; return the folders of the runs, in order.

    Args:
        tradeoffs: Weights; all of the same objectives, that of the pairs and those of the sources.
        pairs: With `prompt`, `chosen` and `rejected`, texts or messages.
        sources: Of the margins.
        policy: Folder of the policy to begin with, which is the reference.
        out: Folder for the runs and the caches.
        training: Fields of TRL's `DPOConfig`, `beta` among them; the same for all.
        adapter: To train; None trains all weights.
        evaluate: Measures a model before and after each training.
        callbacks: Of all trainings.

    Raises:
        SteerwardError: If weights, pairs or settings do not fit, before anything is trained, or a
            folder holds another run.
    """
    tradeoffs = _ordered(tradeoffs, margin_names(sources))
    for name in _OWN:
        if name in training:
            raise InvalidRequest(f"a sweep sets {name} itself; leave it out", param="training")
    settings = modpo_config(out, training)
    check_losses(list(settings.loss_type), divergence=settings.f_divergence_type)
    version = weight_version(policy)
    with PartialState().main_process_first():
        pairs = with_margins(pairs, sources, cache=out / "margins.jsonl")
        pairs = with_reference(
            pairs, policy=policy, training=training, cache=out / "reference.safetensors"
        )
    identity = _identity(pairs, version, training, adapter)
    runs = _Runs(pairs, policy, version, identity, training, adapter, evaluate, tuple(callbacks))
    folders = [runs.folder(out, tradeoff) for tradeoff in tradeoffs]
    todo = [
        (folder, tradeoff)
        for folder, tradeoff in zip(folders, tradeoffs, strict=True)
        if not folder.is_finished
    ]
    start = runs.start() if todo else None
    for number, (folder, tradeoff) in enumerate(todo, 1):
        logger.info("MODPO %s, %d of %d", folder.path.name, number, len(todo))
        runs.run(folder, tradeoff, start)
    return [folder.path for folder in folders]


def run_name(tradeoff: Tradeoff) -> str:
    """Return the name of a run's folder: its objectives with their weights."""
    named = zip(tradeoff.names, tradeoff.weights, strict=True)
    return re.sub(r"[^\w.+-]", "-", "_".join(f"{name}-{weight!r}" for name, weight in named))


def _ordered(tradeoffs: Sequence[Tradeoff], others: Sequence[str]) -> list[Tradeoff]:
    """Return weights in the order of the margins, whatever theirs is."""
    found: list[Tradeoff] = []
    for one in tradeoffs:
        if one.names[0] != tradeoffs[0].names[0] or set(one.margin_names) != set(others):
            raise InvalidRequest(
                f"weights are of {', '.join(map(brief, one.names))}, and the objectives are "
                f"{', '.join(map(brief, (tradeoffs[0].names[0], *others)))}; give each its weight",
                param="tradeoffs",
            )
        by_name = dict(zip(one.names, one.weights, strict=True))
        names = (one.names[0], *others)
        found.append(Tradeoff(names, tuple(by_name[name] for name in names)))
    if not found or len({run_name(one) for one in found}) < len(found):
        raise InvalidRequest("give at least one set of weights, and each once", param="tradeoffs")
    return found


@dataclass(frozen=True, slots=True)
class _Runs:
    """What all runs of a sweep share."""

    pairs: Dataset
    policy: Path
    version: str
    """Of the policy's weights."""
    identity: str
    training: Mapping[str, Any]
    adapter: LoraConfig | None
    evaluate: Evaluate | None
    callbacks: tuple[TrainerCallback, ...]

    def folder(self, out: Path, tradeoff: Tradeoff) -> RunFolder:
        name = run_name(tradeoff)
        settings = {
            "method": "modpo",
            "name": name,
            "objectives": list(tradeoff.names),
            "weights": dict(zip(tradeoff.names, tradeoff.weights, strict=True)),
            "pairs": len(self.pairs),
            "training": json.loads(json.dumps(dict(self.training), default=repr)),
            "identity": self._identity(tradeoff),
        }
        return RunFolder(out / name, settings)

    def start(self) -> Mapping[str, Any] | None:
        """Return what is measured of the policy before it is trained."""
        if self.evaluate is None:
            return None
        model: Any = self._model()
        return self.evaluate(model.eval().to(PartialState().device))

    def run(self, folder: RunFolder, tradeoff: Tradeoff, start: Mapping[str, Any] | None) -> None:
        identity, state = self._identity(tradeoff), PartialState()
        checkpoint: Path | None = None
        with state.main_process_first():
            checkpoint = complete_checkpoint(folder.checkpoints, identity=identity)
        writer = folder.writer() if state.is_main_process else None
        if writer is not None and start is not None and checkpoint is None:
            _evaluate(writer, 0, start)
        trainer = MODPOTrainer(
            tradeoff=tradeoff,
            args=modpo_config(folder.checkpoints, self.training),
            train_dataset=self.pairs,
            model=self._model(),
            processing_class=padded_tokenizer(self.policy),
            peft_config=copy.deepcopy(self.adapter),
            callbacks=[RunLog(writer, identity=identity), *self.callbacks],
        )
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        self._finish(trainer, folder, writer)

    def _finish(self, trainer: MODPOTrainer, folder: RunFolder, writer: RunWriter | None) -> None:
        model: Any = trainer.accelerator.unwrap_model(trainer.model_wrapped)
        found = None if self.evaluate is None else self.evaluate(model.eval())
        # All processes give their part of the weights; one writes.
        weights: Any = trainer.accelerator.get_state_dict(trainer.model_wrapped)
        if writer is not None:
            if found is not None:
                _evaluate(writer, trainer.state.global_step, found)
            folder.save(model, weights, base=self.policy)
            shutil.rmtree(folder.checkpoints, ignore_errors=True)
        trainer.accelerator.wait_for_everyone()

    def _model(self) -> PreTrainedModel:
        if weight_version(self.policy) != self.version:
            raise CheckpointRefused(
                f"{self.policy} has changed since the sweep began, and its runs would not begin "
                "alike; copy it to a folder that nobody writes to, and sweep anew"
            )
        return load_pretrained(
            AutoModelForCausalLM, self.policy, what="policy", dtype=torch.float32
        )

    def _identity(self, tradeoff: Tradeoff) -> str:
        told = json.dumps([self.identity, tradeoff.names, tradeoff.weights])
        return hashlib.sha256(told.encode()).hexdigest()


def _identity(
    pairs: Dataset, version: str, training: Mapping[str, Any], adapter: LoraConfig | None
) -> str:
    """Return what all numbers of a sweep depend on, but for the weights."""
    told = [version, dict(training), None if adapter is None else adapter.to_dict()]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=_plain).encode())
    for row in pairs:
        digest.update(json.dumps(row, sort_keys=True, default=repr).encode())
    return digest.hexdigest()


def _evaluate(writer: RunWriter, step: int, found: Mapping[str, Any]) -> None:
    writer.evaluate(step, rewards=found["rewards"], characters=found["characters"])


def _plain(value: Any) -> Any:
    # Sets have no order of their own.
    return sorted(value) if isinstance(value, set | frozenset) else repr(value)
