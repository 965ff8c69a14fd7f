"""The head layouts that can be loaded: which keys they have and what the keys mean.

Dispatch is by configuration keys and tensor shapes; class names are shared by different
layouts (ArmoRM and QRM) and are never looked at. Each reader takes the keys it knows; what it
leaves must be the backbone's, or the checkpoint is refused.

Axis legend: K objectives, Q quantiles, H hidden, D gate hidden.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from steerward.gating.network import GatingNetwork
from steerward.models.heads import Architecture, HeadParts, RewardHeads
from steerward.models.native import (
    HEADS_FILE,
    NATIVE_SECTION,
    Config,
    linear,
    positive,
    positive_number,
    read_native,
)
from steerward.models.tensors import TensorFiles
from steerward.protocol.errors import CheckpointRefused

# What the keys of heads, gates and transforms begin with, here and in other projects' layouts.
_HEAD_PREFIXES = (
    "gate.",
    "gating.",
    "heads.",
    "regression_layer",
    "reward_transform",
    "score.",
    "transform.",
    "v_head.",
    "weights.fc",
)
_URM_LAYER = re.compile(r"weights\.fc\.(\d+)\.")
_CLASS_PROBLEMS = ("single_label_classification", "multi_label_classification")


def read_heads(config: Config, files: TensorFiles) -> HeadParts:
    """Return the heads, gate and transform of a checkpoint.

    Raises:
        CheckpointRefused: If the layout is not known, or a key is missing, mis-shaped, not
            finite or left over; the key is named.
    """
    parts = _read_layout(config, files)
    _refuse_left_keys(files, parts.architecture)
    return parts


def _refuse_left_keys(files: TensorFiles, architecture: Architecture) -> None:
    """Refuse heads that would not count; left keys of the backbone are its loader's to judge.

    It judges only the files that it opens, so a head in any other must be found here.
    """
    for key in sorted(set(files) - files.taken):
        name = files.file_name(key)
        if name == HEADS_FILE or key.startswith(_HEAD_PREFIXES):
            raise CheckpointRefused(
                f"head key {key!r} in {name} is not known to the {architecture} layout as "
                "config.json describes it; describe it there, or remove the key"
            )


def _read_layout(config: Config, files: TensorFiles) -> HeadParts:
    if NATIVE_SECTION in config:
        return read_native(config, files)
    if "regression_layer.weight" in files or "gating_temperature" in config:
        read = _read_quantiles if "num_quantiles" in config else _read_armorm
        return read(config, files)
    if any(_URM_LAYER.match(key) for key in files):
        return _read_urm(config, files)
    if "score.weight" in files:
        return _read_sequence_classification(config, files)
    raise CheckpointRefused(
        f"{files.folder} has none of the head keys that are known (regression_layer.weight, "
        "score.weight, or a config.json with a steerward section); it is not a reward model, or "
        "one of a layout that is not supported"
    )


def _read_armorm(config: Config, files: TensorFiles) -> HeadParts:
    num_objectives = positive(config, "num_objectives")
    weight_KH = files.take("regression_layer.weight", (num_objectives, None))
    transform_KK = files.take("reward_transform_matrix", (num_objectives, num_objectives))
    num_layers = positive(config, "gating_n_hidden") + 1
    layers: list[nn.Linear] = []
    width = weight_KH.shape[1]
    for i in range(num_layers):
        is_last = i == num_layers - 1
        out = num_objectives if is_last else positive(config, "gating_hidden_dim")
        weight = files.take(f"gating.layers.{i}.weight", (out, width))
        layers.append(linear(weight, files.take(f"gating.layers.{i}.bias", (out,))))
        width = out
    gate = GatingNetwork(
        layers,
        temperature=positive_number(config, "gating_temperature"),
        scale=float(files.take("gating.logit_scale", (1,))),
    )
    return HeadParts("armorm", RewardHeads(weight_KH), gate, transform_KK)


def _read_quantiles(config: Config, files: TensorFiles) -> HeadParts:
    """QRM (arXiv:2409.10164): a reward is the mean of its quantiles.

    The mean of linear maps is the linear map of the mean, and a batch norm at rest is a scale
    and shift of the next layer's input, so the plain heads and gate stand in for both exactly.
    """
    num_objectives = positive(config, "num_objectives")
    num_quantiles = positive(config, "num_quantiles")
    rows = num_objectives * num_quantiles
    weight = files.take("regression_layer.weight", (rows, None))
    weight_KQH = weight.double().view(num_objectives, num_quantiles, -1)
    transform_KK = files.take("reward_transform_matrix", (num_objectives, num_objectives))
    layers = _fold_batch_norms(files, width=weight.shape[1], num_objectives=num_objectives)
    expected = positive(config, "gating_n_hidden") + 1
    if len(layers) != expected:
        raise CheckpointRefused(
            f"head keys 'gating.layers.*.weight' make {len(layers)} linear layers, config.json "
            f"asks for {expected} (gating_n_hidden + 1); some are missing or too many"
        )
    gate = GatingNetwork(
        layers,
        temperature=positive_number(config, "gating_temperature"),
        scale=float(files.take("gating.logit_scale", (1,))),
    )
    return HeadParts("qrm", RewardHeads(weight_KQH.mean(dim=1)), gate, transform_KK)


def _fold_batch_norms(files: TensorFiles, *, width: int, num_objectives: int) -> list[nn.Linear]:
    """Return gate layers Linear -> ReLU -> BatchNorm ... Linear as linear layers with ReLU."""
    indices = sorted(
        {int(m[1]) for key in files if (m := re.match(r"gating\.layers\.(\d+)\.", key))}
    )
    layers: list[nn.Linear] = []
    norm: tuple[Tensor, Tensor] | None = None
    for i in indices:
        prefix = f"gating.layers.{i}"
        if f"{prefix}.running_mean" in files:
            norm = _batch_norm(files, prefix, width)
            continue
        is_last = i == indices[-1]
        out = num_objectives if is_last else files.num_rows(f"{prefix}.weight")
        weight = files.take(f"{prefix}.weight", (out, width)).double()
        bias = torch.zeros(out, dtype=torch.float64)
        if is_last or f"{prefix}.bias" in files:
            bias = files.take(f"{prefix}.bias", (out,)).double()
        if norm is not None:
            factor, shift = norm
            bias = bias + weight @ shift
            weight = weight * factor
            norm = None
        elif layers:
            raise CheckpointRefused(
                f"head keys of the batch norm before '{prefix}.weight' are missing"
            )
        layers.append(linear(weight, bias))
        width = out
    if not layers or norm is not None:
        raise CheckpointRefused(
            "head key 'gating.layers.*.weight' of the last gate layer is missing"
        )
    return layers


def _batch_norm(files: TensorFiles, prefix: str, width: int) -> tuple[Tensor, Tensor]:
    """Return factor and shift of a batch norm with its running statistics."""
    mean, variance, weight, bias = (
        files.take(f"{prefix}.{name}", (width,)).double()
        for name in ("running_mean", "running_var", "weight", "bias")
    )
    files.take(f"{prefix}.num_batches_tracked", ())
    factor = weight / torch.sqrt(variance + nn.BatchNorm1d(1).eps)
    return factor, bias - mean * factor


def _read_urm(config: Config, files: TensorFiles) -> HeadParts:
    """URM (arXiv:2410.00847): (mean, spread) pairs; the means are the rewards.

    The weighting MLP reads the candidate's last token and has no softmax.
    """
    indices = sorted({int(match[1]) for key in files if (match := _URM_LAYER.match(key))})
    rows = files.num_rows("score.weight")
    if rows % 2:
        raise CheckpointRefused(
            f"head key 'score.weight' has {rows} rows, expected (mean, spread) pairs"
        )
    missing = set(range(0, indices[-1], 2)).difference(indices) if indices else set[int]()
    if missing:
        raise CheckpointRefused(f"head key 'weights.fc.{min(missing)}.weight' is missing")
    num_objectives = rows // 2
    weight = files.take("score.weight", (_num_labels(config) or rows, None))
    width = weight.shape[1]
    layers: list[nn.Linear] = []
    for i in indices:
        is_last = i == indices[-1]
        out = num_objectives if is_last else files.num_rows(f"weights.fc.{i}.weight")
        layer_weight = files.take(f"weights.fc.{i}.weight", (out, width))
        layers.append(linear(layer_weight, files.take(f"weights.fc.{i}.bias", (out,))))
        width = out
    gate = GatingNetwork(layers, activation="selu", normalisation="none", reads="candidate")
    return HeadParts("urm", RewardHeads(weight[0::2]), gate, torch.eye(num_objectives))


def _read_sequence_classification(config: Config, files: TensorFiles) -> HeadParts:
    num_labels = _num_labels(config) or files.num_rows("score.weight")
    weight_KH = files.take("score.weight", (num_labels, None))
    bias_K = files.take("score.bias", (num_labels,)) if "score.bias" in files else None
    problem = config.get("problem_type")
    if num_labels > 1 and problem in _CLASS_PROBLEMS:
        raise CheckpointRefused(
            f"config.json says problem_type {problem!r}: its {num_labels} outputs are logits of "
            "classes, not rewards; only regression labels can be scored"
        )
    return HeadParts(
        "sequence-classification", RewardHeads(weight_KH, bias_K), None, torch.eye(num_labels)
    )


def _num_labels(config: Config) -> int | None:
    labels = config.get("id2label")
    return len(labels) if isinstance(labels, Mapping) else config.get("num_labels")
