"""Load a reward model from a folder or hub id: the one way in for every supported layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import ValidationError
from transformers import PreTrainedTokenizerBase

from steerward.models.backbone import Backbone
from steerward.models.chat import ChatEncoder
from steerward.models.heads import HeadParts
from steerward.models.layout import read_heads
from steerward.models.native import native_section
from steerward.models.presets import Preset, find_preset
from steerward.models.pretrained import load_tokenizer, read_config
from steerward.models.reward_model import RewardModel
from steerward.models.source import resolve_source, weight_version
from steerward.models.tensors import TensorFiles
from steerward.protocol.errors import CheckpointRefused
from steerward.protocol.objectives import ObjectiveSet

# Output layers of language models and classifiers, which a backbone does not need.
OUTPUT_KEYS = {"score.weight", "lm_head.weight"}

_DEVICES = "use auto, cpu, cuda or cuda:0"
_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
}


def load_reward_model(
    source: str | Path, *, device: str = "auto", dtype: str = "auto"
) -> RewardModel:
    """Load any supported reward model, or refuse.

    Args:
        source: ``pocket``, a checkpoint folder, or a hub id (``owner/name[@revision]``).
        device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda``, ``cuda:1`` ...
        dtype: Of the backbone: ``auto``, ``float32``, ``bfloat16``, ``float16``, or ``int8`` on a
            CPU. ``auto`` is float32 on CPU; on CUDA it is float16 where config.json says that the
            backbone is stored so, which bfloat16 would round, and bfloat16 otherwise. Heads and
            gate are always float32.

    Raises:
        NotFound: If there is no such checkpoint.
        CheckpointRefused: If loading it would need a guess; the key or file is named.
    """
    folder = resolve_source(str(source))
    config = read_config(folder)
    where = resolve_device(device)
    parts = read_heads(config, files := TensorFiles(folder))
    preset = find_preset(str(source), folder, num_objectives=parts.heads.num_objectives)
    backbone_folder = _backbone_folder(config, folder)
    backbone, chat = _load_text_model(
        backbone_folder,
        tokenizer_folder=folder if _has_tokenizer(folder) else backbone_folder,
        template=preset.template if preset else None,
        # A backbone elsewhere may be a model of its own, with an output layer nobody reads here.
        head_keys=files.taken if backbone_folder == folder else OUTPUT_KEYS,
        device=where,
        dtype=dtype,
    )
    return RewardModel(
        backbone=backbone,
        chat=chat,
        heads=parts.heads,
        gate=parts.gate,
        transform_KK=parts.transform_KK,
        objectives=_objectives(config, preset, parts),
        architecture=parts.architecture,
        weight_version=weight_version(folder),
        max_input_tokens=backbone.max_positions,
    )


def load_backbone(
    source: str | Path, *, device: str = "auto", dtype: str = "auto"
) -> tuple[Backbone, ChatEncoder]:
    """Load the backbone of a checkpoint with its encoder, and leave output layers aside.

    Raises:
        NotFound: If there is no such checkpoint.
        CheckpointRefused: If the backbone cannot be loaded without guessing.
    """
    folder = resolve_source(str(source))
    preset = find_preset(str(source), folder)
    return _load_text_model(
        folder,
        tokenizer_folder=folder,
        template=preset.template if preset else None,
        head_keys=OUTPUT_KEYS,
        device=resolve_device(device),
        dtype=dtype,
    )


def _load_text_model(
    folder: Path,
    *,
    tokenizer_folder: Path,
    template: str | None,
    head_keys: set[str],
    device: torch.device,
    dtype: str,
) -> tuple[Backbone, ChatEncoder]:
    tokenizer = load_tokenizer(tokenizer_folder)
    backbone = Backbone.load(
        folder,
        dtype=resolve_dtype(dtype, device, read_config(folder)),
        device=device,
        head_keys=head_keys,
    )
    _check_vocabulary(tokenizer, backbone)
    return backbone, ChatEncoder(tokenizer, template=template)


def resolve_device(device: str) -> torch.device:
    """Return the device that a setting means.

    Raises:
        CheckpointRefused: If it is neither a CPU nor a CUDA device, or one that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise CheckpointRefused(f"{device!r} is not a device; {_DEVICES}") from error
    if where.type not in ("cpu", "cuda"):
        raise CheckpointRefused(f"device {device!r} is not supported; {_DEVICES}")
    count = torch.cuda.device_count() if where.type == "cuda" else 1
    if (where.index or 0) >= count:
        raise CheckpointRefused(f"device {device!r} is not there, torch sees {count}; {_DEVICES}")
    return where


def resolve_dtype(dtype: str, device: torch.device, config: Mapping[str, Any]) -> torch.dtype:
    """Return what a backbone computes in.

    Args:
        dtype: The setting.
        device: Where it computes.
        config: Of the backbone; it says what the weights are stored in.

    Raises:
        CheckpointRefused: If the setting is not a type that backbones compute in.
    """
    if dtype == "auto":
        if device.type == "cpu":
            return torch.float32
        # transformers wrote torch_dtype before it wrote dtype.
        stored = config.get("dtype") or config.get("torch_dtype")
        return torch.float16 if stored == "float16" else torch.bfloat16
    if dtype not in _DTYPES:
        raise CheckpointRefused(f"dtype {dtype!r} is not one of auto, {', '.join(_DTYPES)}")
    if dtype == "int8" and device.type != "cpu":
        raise CheckpointRefused(
            f"dtype int8 is for CPUs, the device is {device}; use bfloat16 there, or --device cpu"
        )
    return _DTYPES[dtype]


def _backbone_folder(config: Mapping[str, Any], folder: Path) -> Path:
    reference = (native_section(config) or {}).get("backbone")
    if reference is None:
        return folder
    source = reference["source"]
    beside = folder / source
    found = beside if beside.is_dir() else resolve_source(source)
    version = weight_version(found)
    if version != reference["weight_version"]:
        raise CheckpointRefused(
            f"the heads in {folder} were trained on backbone {source!r} with weight version "
            f"{reference['weight_version']}, but it now has {version}"
        )
    return found


def _has_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer.json").is_file() or (folder / "tokenizer.model").is_file()


def _check_vocabulary(tokenizer: PreTrainedTokenizerBase, backbone: Backbone) -> None:
    highest = max(tokenizer.get_vocab().values())
    if highest >= backbone.vocabulary_size:
        raise CheckpointRefused(
            f"the tokenizer gives ids up to {highest}, the backbone embeds only "
            f"{backbone.vocabulary_size}; these files do not belong together"
        )


def _objectives(config: Mapping[str, Any], preset: Preset | None, parts: HeadParts) -> ObjectiveSet:
    """Return names from the checkpoint, else a preset, else id2label, else objective_0..."""
    if (section := native_section(config)) is not None:
        try:
            return ObjectiveSet(objectives=section["objectives"])
        except ValidationError as error:
            raise CheckpointRefused(f"config.json: steerward.objectives: {error}") from error
    if preset is not None:
        return ObjectiveSet(objectives=preset.objectives)
    count = parts.heads.num_objectives
    labels = cast("Mapping[str, str]", config.get("id2label") or {})
    names = [labels.get(str(i), f"LABEL_{i}") for i in range(count)]
    # transformers writes LABEL_0, LABEL_1 ... where nobody chose a name.
    if (
        len(labels) != count
        or len(set(names)) < count
        or any(name == f"LABEL_{i}" for i, name in enumerate(names))
    ):
        names = [f"objective_{i}" for i in range(count)]
    try:
        return ObjectiveSet.from_names(names)
    except ValidationError as error:
        raise CheckpointRefused(
            f"config.json: id2label does not name objectives: {error}; rename them"
        ) from error
