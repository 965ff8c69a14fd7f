"""From backbone, heads and gate to one checkpoint that serves what was trained.

Before the checkpoint gets its name it is loaded and its scores of some training pairs are
compared with those that training computed from the vectors.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from steerward.models.checkpoint import OUTPUT_KEYS, load_reward_model
from steerward.models.heads import HeadParts, RewardHeads
from steerward.models.native import BackboneReference, save_heads
from steerward.models.packing import group_conversations
from steerward.models.reward_model import RewardModel
from steerward.models.source import resolve_source, weight_version
from steerward.models.tensors import INDEX_NAME
from steerward.protocol.errors import CheckpointRefused, DatasetRefused
from steerward.protocol.objectives import Objective, ObjectiveSet, RatingScale
from steerward.training.config import PackageConfig
from steerward.training.data.rows import PreferencePair, load_rows
from steerward.training.embeddings import answers_of
from steerward.training.gating import Probe, read_gating
from steerward.training.heads import FittedHeads, read_heads

# What the labels of training are brought to.
UNIT_SCALE = "0..1"

_COPIED = ("*.json", "*.jinja", "*.model", "*.txt", "*.safetensors")
# Vectors and serving batch their sums differently; everything else is the same arithmetic.
_TOLERANCE = 1e-4


def run_package(config: PackageConfig) -> Path:
    """Write the checkpoint and return its folder.

    Raises:
        SteerwardError: If the parts are not of one backbone, the folder exists, or the packaged
            model scores otherwise than training did.
    """
    if config.out.exists():
        raise CheckpointRefused(f"{config.out} exists already; choose another --out")
    fitted = read_heads(config.heads)
    gate, transform_KK, report = read_gating(config.gate)
    backbone = resolve_source(config.backbone)
    _check_versions(config, fitted.report, report, weight_version(backbone))
    building = config.out.with_name(config.out.name + ".building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    reference = None
    if config.refer:
        source = str(backbone.resolve()) if backbone.exists() else config.backbone
        reference = BackboneReference(source, weight_version(backbone))
    else:
        _copy_backbone(backbone, building)
    save_heads(
        building,
        HeadParts("steerward", _centred(fitted, report), gate, transform_KK),
        objectives=_objectives(fitted.report, report),
        backbone=reference,
        details={"transform": report["transform"]},
    )
    model = load_reward_model(building, device="cpu", dtype="float32")
    _check_scores(model, [Probe(**probe) for probe in report["probes"]])
    os.replace(building, config.out)
    return config.out


def _check_versions(
    config: PackageConfig, heads: Mapping[str, Any], gate: Mapping[str, Any], backbone: str
) -> None:
    found = {"heads": heads["weight_version"], "gate": gate["weight_version"]}
    for part, version in found.items():
        if version != backbone:
            raise CheckpointRefused(
                f"the {part} were trained on backbone {version}, but {config.backbone} has "
                f"weight version {backbone}"
            )
    if list(gate["reference"]) != list(heads["objectives"]):
        raise CheckpointRefused("heads and gate have other objectives; train the gate again")


def _centred(fitted: FittedHeads, gate: Mapping[str, Any]) -> RewardHeads:
    """Return the heads with the mean of the reference set at 0, as the gate has learnt them."""
    means_K = torch.tensor([gate["reference"][name]["mean"] for name in fitted.names])
    assert fitted.heads.bias is not None
    return RewardHeads(fitted.heads.weight, fitted.heads.bias - means_K)


def _objectives(heads: Mapping[str, Any], gate: Mapping[str, Any]) -> ObjectiveSet:
    return ObjectiveSet(
        objectives=tuple(
            Objective(
                name=name,
                rating=RatingScale(label=UNIT_SCALE, offset=gate["reference"][name]["mean"]),
                reference_mean=0.0,
                reference_std=gate["reference"][name]["std"],
                description=heads["descriptions"].get(name),
            )
            for name in heads["objectives"]
        )
    )


def _copy_backbone(source: Path, target: Path) -> None:
    """Copy what a backbone needs, bit by bit, without output layers."""
    for pattern in _COPIED:
        for path in sorted(source.glob(pattern)):
            if path.suffix == ".safetensors":
                _copy_weights(path, target / path.name)
            else:
                shutil.copyfile(path, target / path.name)
    index = target / INDEX_NAME
    if index.is_file():
        content = json.loads(index.read_text())
        for key in OUTPUT_KEYS:
            content["weight_map"].pop(key, None)
        index.write_text(json.dumps(content, indent=2))


def _copy_weights(source: Path, target: Path) -> None:
    tensors = load_file(source)
    if not OUTPUT_KEYS & set(tensors):
        shutil.copyfile(source, target)
        return
    kept = {key: tensor for key, tensor in tensors.items() if key not in OUTPUT_KEYS}
    save_file(kept, target, metadata={"format": "pt"})


def _check_scores(model: RewardModel, probes: list[Probe]) -> None:
    """Compare served scores with those of training."""
    files = {
        file: load_rows([Path(file)], PreferencePair) for file in {probe.file for probe in probes}
    }
    for probe in probes:
        rows = files[probe.file]
        if probe.row >= len(rows):
            raise DatasetRefused(f"{probe.file} has changed since the gate was trained")
        row = rows[probe.row]
        conversations = model.encode(row.context, answers_of(row))
        scores_N = model.score(group_conversations(conversations)).scores_N
        assert scores_N is not None
        difference = float((scores_N - torch.tensor(probe.scores)).abs().max())
        if not difference <= _TOLERANCE:
            raise CheckpointRefused(
                f"the packaged model scores {probe.file} row {probe.row} as "
                f"{scores_N.tolist()}, training had {probe.scores}; embed and train again with "
                "this backbone, template and dtype float32"
            )
