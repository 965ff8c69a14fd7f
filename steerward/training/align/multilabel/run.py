"""A multi-label reward model, from labelled rows to a folder that is served.

A run that is broken off goes on from its last complete checkpoint and ends with the same weights.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from steerward.models.chat import ChatEncoder
from steerward.models.pretrained import load_tokenizer, quiet_loading, read_config
from steerward.models.source import resolve_source, weight_version
from steerward.protocol.errors import CheckpointRefused, InvalidRequest, brief
from steerward.training.align.multilabel.card import write_card
from steerward.training.align.multilabel.data import (
    LabelledExamples,
    encode_labelled,
    label_names,
    padding_token,
    read_labelled,
)
from steerward.training.align.multilabel.loss import balancing_weights, calibrations, fits, mean_r2
from steerward.training.align.multilabel.settings import MultiLabelConfig
from steerward.training.align.multilabel.trainer import (
    MultiLabelTrainer,
    Progress,
    Told,
    load_label_model,
)
from steerward.training.files import file_digest, write_json
from steerward.training.sft_folder import complete_checkpoint, whole_folder

_LIBRARIES = ("torch", "transformers", "accelerate")
# Change no weight.
_FREE_TO_CHANGE = {"out", "checkpoint_steps", "logging_steps", "report_to", "weights_dtype"} | {
    # Their content is compared, wherever it lies.
    *("data", "start")
}


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What training needs."""

    folder: Path
    tokenizer: PreTrainedTokenizerBase
    names: list[str]
    train: LabelledExamples
    held_out: LabelledExamples
    weights_K: Tensor


def train_multilabel(settings: MultiLabelConfig, *, told: Told | None = None) -> dict[str, Any]:
    """Train a model as settings say; return its report, which lies in the folder too.

    Args:
        settings: What is given.
        told: Called with each line of the log, in the first process.

    Raises:
        SteerwardError: If files or settings do not fit, the loss is no number, or the model has
            learnt nothing.
    """
    if settings.out.exists():
        raise CheckpointRefused(f"{settings.out} exists already; choose another --out")
    torch.manual_seed(settings.seed)
    prepared = _prepare(settings)
    runs = settings.out.with_name(settings.out.name + ".checkpoints")
    identity = _identity(settings, prepared.folder)
    with PartialState().main_process_first():
        checkpoint = complete_checkpoint(runs, identity=identity)
    trainer = _trainer(settings, prepared, runs)
    trainer.add_callback(Progress(identity, told))
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    report = _finish(trainer, settings, prepared)
    if trainer.is_world_process_zero():
        shutil.rmtree(runs, ignore_errors=True)
    return report


def _prepare(settings: MultiLabelConfig) -> _Prepared:
    folder = resolve_source(settings.start)
    rows = read_labelled(settings.data)
    names = label_names(rows, settings.objectives)
    tokenizer = load_tokenizer(folder)
    positions = read_config(folder).get("max_position_embeddings") or settings.max_tokens
    train, held_out = encode_labelled(
        rows,
        names,
        ChatEncoder(tokenizer),
        max_tokens=min(settings.max_tokens, int(positions)),
        validation=(settings.validation_share, settings.seed),
    )
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(padding_token(tokenizer, train))
    weights_K = _weights(settings, names, train.labels_NK)
    return _Prepared(folder, tokenizer, names, train, held_out, weights_K)


def _weights(settings: MultiLabelConfig, names: list[str], labels_NK: Tensor) -> Tensor:
    unknown = [brief(name) for name in settings.label_weights if name not in names]
    if unknown:
        raise InvalidRequest(
            f"label_weights name {', '.join(unknown)}; the labels are {', '.join(names)}"
        )
    weights_K = torch.tensor([settings.label_weights.get(name, 1.0) for name in names])
    return weights_K * balancing_weights(labels_NK) if settings.balance_labels else weights_K


def _trainer(settings: MultiLabelConfig, prepared: _Prepared, runs: Path) -> MultiLabelTrainer:
    model = load_label_model(
        prepared.folder,
        prepared.names,
        padding=cast("int", prepared.tokenizer.pad_token_id),
        seed=settings.seed,
    )
    return MultiLabelTrainer(
        model,
        (prepared.train, prepared.held_out),
        names=prepared.names,
        weights_K=prepared.weights_K,
        config=settings,
        runs=runs,
    )


def _finish(
    trainer: MultiLabelTrainer, settings: MultiLabelConfig, prepared: _Prepared
) -> dict[str, Any]:
    """Measure what is stored, and store it."""
    # All processes give their part of the weights; one writes.
    state: Any = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    model = cast("PreTrainedModel", trainer.accelerator.unwrap_model(trainer.model_wrapped))
    dtype = getattr(torch, settings.weights_dtype)
    model.to(dtype)  # pyright: ignore[reportArgumentType] (stub of another method)
    predicted_NK = trainer.predict_held_out()
    report = _report(trainer, settings, prepared, predicted_NK)
    if trainer.is_world_process_zero():
        model.config.calibration = report["calibration"]
        with whole_folder(settings.out) as folder:
            stored = {key: tensor.to(dtype) for key, tensor in state.items()}
            with quiet_loading():
                model.save_pretrained(folder, state_dict=stored)
            prepared.tokenizer.save_pretrained(folder)
            write_json(folder / "report.json", report)
            write_card(folder / "README.md", report)
    trainer.accelerator.wait_for_everyone()
    return report


def _report(
    trainer: MultiLabelTrainer,
    settings: MultiLabelConfig,
    prepared: _Prepared,
    predicted_NK: Tensor,
) -> dict[str, Any]:
    names = prepared.names
    found = fits(predicted_NK, prepared.held_out.labels_NK, names)
    calibration = calibrations(predicted_NK, names)
    return {
        "name": settings.out.name,
        "start": prepared.folder.name,
        "objectives": names,
        "held_out": {name: asdict(fit) for name, fit in found.items()},
        "mean_r2": mean_r2(found),
        "calibration": {name: asdict(one) for name, one in calibration.items()},
        "label_weights": dict(zip(names, prepared.weights_K.tolist(), strict=True)),
        "rows": _row_counts(prepared),
        "steps": trainer.state.global_step,
        "weights_dtype": settings.weights_dtype,
        "data_sha256": [file_digest(path) for path in settings.data],
        "versions": {name: version(name) for name in _LIBRARIES},
    }


def _row_counts(prepared: _Prepared) -> Mapping[str, Any]:
    train, held_out = prepared.train, prepared.held_out
    labels_K = (~train.labels_NK.isnan()).sum(dim=0)
    return {
        "train": len(train),
        "held_out": len(held_out),
        "left_out": train.left_out + held_out.left_out,
        "labels": dict(zip(prepared.names, labels_K.tolist(), strict=True)),
    }


def _identity(settings: MultiLabelConfig, start: Path) -> str:
    """Return what a checkpoint must be of, for training to go on from it."""
    digest = hashlib.sha256(settings.model_dump_json(exclude=_FREE_TO_CHANGE).encode())
    for part in (weight_version(start), *(file_digest(path) for path in settings.data)):
        digest.update(part.encode())
    return digest.hexdigest()
