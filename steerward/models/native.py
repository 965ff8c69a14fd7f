"""Steerward's own checkpoint format: heads, gate and transform beside a backbone.

A folder that transformers can read too: ``config.json`` (the backbone's, with a ``steerward``
section), ``model.safetensors`` (the backbone), ``heads.safetensors`` (heads, gate, transform,
float32), tokenizer files and chat template. The section holds objective names, rating scales
and reference moments. A checkpoint may refer to a backbone elsewhere instead of holding it; then
its weight version is pinned and checked.

Axis legend: K objectives, H hidden.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import skip_init

from steerward.gating.network import GatingNetwork, Reads
from steerward.kernels.gating_mlp import Activation, Normalisation
from steerward.models.heads import HeadParts, RewardHeads
from steerward.models.tensors import TensorFiles
from steerward.protocol.errors import CheckpointRefused
from steerward.protocol.objectives import ObjectiveSet

NATIVE_SECTION = "steerward"
FORMAT_VERSION = 1
HEADS_FILE = "heads.safetensors"

Config = Mapping[str, Any]


def native_section(config: Config) -> Config | None:
    """Return the section of a configuration in the own format, or None if it has none.

    Raises:
        CheckpointRefused: If it is of another format version, or a part of it is not what
            `save_heads` writes; the key is named.
    """
    if NATIVE_SECTION not in config:
        return None
    section = _of_type(config, NATIVE_SECTION, Mapping, "an object")
    version = section.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointRefused(
            f"config.json has {NATIVE_SECTION} format {version!r}, this version of steerward "
            f"reads {FORMAT_VERSION}"
        )
    _of_type(section, "objectives", list, "a list of objectives")
    if section.get("gate") is not None:
        _of_type(section, "gate", Mapping, "an object or null")
    if section.get("backbone") is not None:
        backbone = _of_type(section, "backbone", Mapping, "an object or null")
        for key in ("source", "weight_version"):
            _of_type(backbone, key, str, "a string")
    return section


def _of_type(config: Config, key: str, kind: type, description: str) -> Any:
    value = config.get(key)
    if not isinstance(value, kind):
        raise CheckpointRefused(f"config.json needs {key!r} as {description}; got {value!r}")
    return value


def read_native(config: Config, files: TensorFiles) -> HeadParts:
    """Return the heads, gate and transform of a checkpoint in the own format.

    Raises:
        CheckpointRefused: If a key is missing, mis-shaped or not finite.
    """
    section = native_section(config)
    assert section is not None
    num_objectives = len(section["objectives"])
    weight_KH = files.take("heads.weight", (num_objectives, None))
    bias_K = files.take("heads.bias", (num_objectives,)) if "heads.bias" in files else None
    transform_KK = files.take("transform.matrix", (num_objectives, num_objectives))
    gate = None
    if section.get("gate") is not None:
        gate = read_gate(section["gate"], files, weight_KH.shape[1], num_objectives)
    return HeadParts("steerward", RewardHeads(weight_KH, bias_K), gate, transform_KK)


def read_gate(spec: Config, files: TensorFiles, width: int, num_objectives: int) -> GatingNetwork:
    """Return a gate from its part of the configuration and its tensors.

    Args:
        spec: What `gate_section` gave.
        files: Holds what `gate_tensors` gave.
        width: Channels it reads.
        num_objectives: Gates it gives.

    Raises:
        CheckpointRefused: If a key is missing, mis-shaped or not finite.
    """
    layers: list[nn.Linear] = []
    num_layers = positive(spec, "num_layers")
    for i in range(num_layers):
        key = f"gate.layers.{i}.weight"
        out = num_objectives if i == num_layers - 1 else files.num_rows(key)
        layers.append(
            linear(files.take(key, (out, width)), files.take(f"gate.layers.{i}.bias", (out,)))
        )
        width = out
    return GatingNetwork(
        layers,
        activation=cast("Activation", _choice(spec, "activation", ("relu", "selu"))),
        normalisation=cast("Normalisation", _choice(spec, "normalisation", ("softmax", "none"))),
        reads=cast("Reads", _choice(spec, "reads", ("prompt", "candidate"))),
        temperature=positive_number(spec, "temperature"),
        scale=float(files.take("gate.scale", (1,))),
    )


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
        section["gate"] = gate_section(parts.gate)
        tensors |= gate_tensors(parts.gate)
    if backbone is not None:
        section["backbone"] = {
            "source": backbone.source,
            "weight_version": backbone.weight_version,
        }
    stored = {key: tensor.detach().float().cpu().contiguous() for key, tensor in tensors.items()}
    save_file(stored, folder / HEADS_FILE)
    path = folder / "config.json"
    config = json.loads(path.read_text()) if path.is_file() else {}
    config[NATIVE_SECTION] = section
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def gate_section(gate: GatingNetwork) -> dict[str, Any]:
    """Return what the configuration says of a gate; `read_gate` reads it."""
    return {
        "num_layers": len(gate.weights),
        "activation": gate.activation,
        "normalisation": gate.normalisation,
        "temperature": gate.temperature,
        "reads": gate.reads,
    }


def gate_tensors(gate: GatingNetwork) -> dict[str, Tensor]:
    """Return the tensors of a gate by key; `read_gate` reads them."""
    tensors: dict[str, Tensor] = {"gate.scale": gate.scale.detach()}
    for i, (weight, bias) in enumerate(zip(gate.weights, gate.biases, strict=True)):
        tensors[f"gate.layers.{i}.weight"] = weight.detach()
        tensors[f"gate.layers.{i}.bias"] = bias.detach()
    return tensors


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """Return a float32 linear layer with these values."""
    layer = cast("nn.Linear", skip_init(nn.Linear, weight.shape[1], weight.shape[0]))
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer


def positive(config: Config, key: str) -> int:
    """Return a positive integer of a configuration, or refuse the checkpoint."""
    value = config.get(key)
    if not isinstance(value, int) or value < 1:
        raise CheckpointRefused(f"config.json needs {key!r} as a positive integer; got {value!r}")
    return value


def positive_number(config: Config, key: str) -> float:
    """Return a positive number of a configuration, or refuse the checkpoint."""
    value = config.get(key)
    if not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise CheckpointRefused(f"config.json needs {key!r} as a positive number; got {value!r}")
    return float(value)


def _choice(config: Config, key: str, choices: tuple[str, ...]) -> str:
    value = config.get(key)
    if value not in choices:
        raise CheckpointRefused(f"config.json needs {key!r} as one of {choices}; got {value!r}")
    return cast("str", value)
