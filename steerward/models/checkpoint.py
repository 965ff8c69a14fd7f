"""Load a reward model from a folder or hub id, and save one in Steerward's own format.

The own format is a folder that transformers can read too: ``config.json`` (the backbone's, with
a ``steerward`` section), ``model.safetensors`` (the backbone), ``heads.safetensors`` (heads,
gate, transform, float32), tokenizer files and chat template. The section holds objective names,
rating scales and reference moments. A checkpoint may refer to a backbone elsewhere instead of
holding it; then its weight version is pinned and checked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from steerward.gating.network import GatingNetwork
from steerward.models.backbone import Backbone
from steerward.models.chat import ChatEncoder
from steerward.models.layout import NATIVE_SECTION, HeadParts, read_heads
from steerward.models.presets import Preset, find_preset
from steerward.models.reward_model import RewardModel
from steerward.models.source import resolve_source, weight_version
from steerward.models.tensors import TensorFiles
from steerward.protocol.errors import CheckpointRefused
from steerward.protocol.objectives import ObjectiveSet

FORMAT_VERSION = 1
HEADS_FILE = "heads.safetensors"

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_reward_model(
    source: str | Path, *, device: str = "auto", dtype: str = "auto"
) -> RewardModel:
    """Load any supported reward model, or refuse.

    Args:
        source: ``pocket``, a checkpoint folder, or a hub id (``owner/name[@revision]``).
        device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda``, ``cuda:1`` ...
        dtype: Of the backbone: ``auto`` (float32 on CPU, bfloat16 on CUDA), ``float32``,
            ``bfloat16`` or ``float16``. Heads and gate are always float32.

    Raises:
        NotFound: If there is no such checkpoint.
        CheckpointRefused: If loading it would need a guess; the key or file is named.
    """
    folder = resolve_source(str(source))
    config = _read_config(folder)
    where = resolve_device(device)
    parts = read_heads(config, files := TensorFiles(folder))
    preset = find_preset(str(source), folder, num_objectives=parts.heads.num_objectives)
    backbone_folder = _backbone_folder(config, folder)
    tokenizer = _load_tokenizer(folder if _has_tokenizer(folder) else backbone_folder)
    backbone = Backbone.load(
        backbone_folder,
        dtype=_resolve_dtype(dtype, where),
        device=where,
        head_keys=files.taken,
    )
    _check_vocabulary(tokenizer, backbone)
    return RewardModel(
        backbone=backbone,
        chat=ChatEncoder(tokenizer, template=preset.template if preset else None),
        heads=parts.heads,
        gate=parts.gate,
        transform_KK=parts.transform_KK,
        objectives=_objectives(config, preset, parts),
        architecture=parts.architecture,
        weight_version=weight_version(folder),
        max_input_tokens=backbone.max_positions,
    )


def resolve_device(device: str) -> torch.device:
    """Return the device that a setting means.

    Raises:
        CheckpointRefused: If it is not a device, or a CUDA device that is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise CheckpointRefused(f"{device!r} is not a device; use cpu, cuda or cuda:0") from error
    if where.type == "cuda" and not torch.cuda.is_available():
        raise CheckpointRefused(f"device {device!r} was asked for, but torch sees no CUDA device")
    return where


def _resolve_dtype(dtype: str, device: torch.device) -> torch.dtype:
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if dtype not in _DTYPES:
        raise CheckpointRefused(f"dtype {dtype!r} is not one of auto, {', '.join(_DTYPES)}")
    return _DTYPES[dtype]


def _read_config(folder: Path) -> Mapping[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointRefused(f"{folder} has no config.json")
    try:
        config: object = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointRefused(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointRefused(f"{path} is not a JSON object")
    section = cast("dict[str, Any]", config).get(NATIVE_SECTION)
    if section is not None and section.get("format_version") != FORMAT_VERSION:
        raise CheckpointRefused(
            f"{path} has steerward format {section.get('format_version')!r}, this version of "
            f"steerward reads {FORMAT_VERSION}"
        )
    return cast("dict[str, Any]", config)


def _backbone_folder(config: Mapping[str, Any], folder: Path) -> Path:
    reference = config.get(NATIVE_SECTION, {}).get("backbone")
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


def _load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (ValueError, OSError) as error:
        raise CheckpointRefused(f"the tokenizer in {folder} did not load: {error}") from error


def _check_vocabulary(tokenizer: PreTrainedTokenizerBase, backbone: Backbone) -> None:
    highest = max(tokenizer.get_vocab().values())
    if highest >= backbone.vocabulary_size:
        raise CheckpointRefused(
            f"the tokenizer gives ids up to {highest}, the backbone embeds only "
            f"{backbone.vocabulary_size}; these files do not belong together"
        )


def _objectives(config: Mapping[str, Any], preset: Preset | None, parts: HeadParts) -> ObjectiveSet:
    """Return names from the checkpoint, else a preset, else id2label, else objective_0..."""
    if NATIVE_SECTION in config:
        try:
            return ObjectiveSet(objectives=config[NATIVE_SECTION]["objectives"])
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
    return ObjectiveSet.from_names(names)


@dataclass(frozen=True, slots=True)
class BackboneReference:
    """A backbone that a checkpoint names instead of holding."""

    source: str
    """Folder (absolute or beside the checkpoint) or hub id."""
    weight_version: str


def save_heads(
    folder: Path,
    parts: HeadParts,
    *,
    objectives: ObjectiveSet,
    backbone: BackboneReference | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Write heads, gate and transform into a folder that holds the backbone, or refers to it.

    Args:
        folder: The checkpoint; with the backbone inside, its ``config.json`` gets the section.
        parts: What to write.
        objectives: Names, scales and reference moments in head order.
        backbone: Where the backbone is, if not in the folder.
        details: Further keys of the section, for people: how it was trained.
    """
    tensors = {"heads.weight": parts.heads.weight, "transform.matrix": parts.transform_KK}
    if parts.heads.bias is not None:
        tensors["heads.bias"] = parts.heads.bias
    section: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "objectives": [o.model_dump(exclude_none=True) for o in objectives.objectives],
        "gate": None,
        **(details or {}),
    }
    if parts.gate is not None:
        section["gate"] = _gate_section(parts.gate)
        tensors["gate.scale"] = parts.gate.scale
        for i, (weight, bias) in enumerate(zip(parts.gate.weights, parts.gate.biases, strict=True)):
            tensors[f"gate.layers.{i}.weight"] = weight
            tensors[f"gate.layers.{i}.bias"] = bias
    if backbone is not None:
        section["backbone"] = {
            "source": backbone.source,
            "weight_version": backbone.weight_version,
        }
    save_file(_contiguous(tensors), folder / HEADS_FILE)
    path = folder / "config.json"
    config = json.loads(path.read_text()) if path.is_file() else {}
    config[NATIVE_SECTION] = section
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _gate_section(gate: GatingNetwork) -> dict[str, Any]:
    return {
        "num_layers": len(gate.weights),
        "activation": gate.activation,
        "normalisation": gate.normalisation,
        "temperature": gate.temperature,
        "reads": gate.reads,
    }


def _contiguous(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: tensor.detach().float().cpu().contiguous() for key, tensor in tensors.items()}
