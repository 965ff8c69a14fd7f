"""Layouts are told apart by keys and shapes; whatever does not fit is refused by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from steerward.models.checkpoint import load_reward_model
from steerward.protocol.errors import CheckpointRefused
from tests.checkpoints import edit_config, edit_tensors
from tests.golden_cases import GOLDEN, GOLDEN_NAMES


def copy_of(name: str, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(GOLDEN / name, tmp_path / name))


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("armorm", "armorm"),
        ("qrm", "qrm"),
        ("urm", "urm"),
        ("seqcls-llama-1", "sequence-classification"),
        ("seqcls-mistral-10", "sequence-classification"),
    ],
)
def test_architecture_does_not_depend_on_the_class_name(
    tmp_path: Path, name: str, architecture: str
) -> None:
    folder = copy_of(name, tmp_path)
    edit_config(folder, architectures=["SomethingElseEntirely"])
    assert load_reward_model(folder).architecture == architecture


HEAD_KEYS = [
    ("armorm", "regression_layer.weight"),
    ("armorm", "reward_transform_matrix"),
    ("armorm", "gating.logit_scale"),
    ("armorm", "gating.layers.0.weight"),
    ("armorm", "gating.layers.2.bias"),
    ("armorm", "gating.layers.3.weight"),
    ("qrm", "reward_transform_matrix"),
    ("qrm", "gating.layers.2.running_var"),
    ("qrm", "gating.layers.9.bias"),
    ("urm", "weights.fc.2.bias"),
    ("urm", "weights.fc.4.weight"),
]


@pytest.mark.parametrize(("name", "key"), HEAD_KEYS)
def test_missing_head_key_is_refused_by_name(tmp_path: Path, name: str, key: str) -> None:
    folder = copy_of(name, tmp_path)
    edit_tensors(folder, lambda tensors: tensors.pop(key))
    with pytest.raises(CheckpointRefused, match=f"head key '{re.escape(key)}' is missing"):
        load_reward_model(folder)


@pytest.mark.parametrize(
    ("name", "layers", "named"),
    [
        ("qrm", ["gating.layers.3.", "gating.layers.5."], "3 linear layers.* asks for 4"),
        ("qrm", ["gating.layers.5."], r"batch norm before 'gating\.layers\.6\.weight'"),
        ("urm", ["weights.fc.0."], r"'weights\.fc\.0\.weight' is missing"),
        ("urm", ["weights.fc.2."], r"'weights\.fc\.2\.weight' is missing"),
    ],
)
def test_missing_gate_layer_is_refused_where_its_neighbours_would_fit(
    tmp_path: Path, name: str, layers: list[str], named: str
) -> None:
    folder = copy_of(name, tmp_path)

    def drop(tensors: dict[str, torch.Tensor]) -> None:
        for key in [key for key in tensors if key.startswith(tuple(layers))]:
            del tensors[key]

    edit_tensors(folder, drop)
    with pytest.raises(CheckpointRefused, match=named):
        load_reward_model(folder)


@pytest.mark.parametrize(("name", "key"), [*HEAD_KEYS, ("seqcls-llama-1", "score.weight")])
def test_mis_shaped_head_key_is_refused_by_name(tmp_path: Path, name: str, key: str) -> None:
    folder = copy_of(name, tmp_path)

    def widen(tensors: dict[str, torch.Tensor]) -> None:
        tensors[key] = torch.cat([tensors[key], tensors[key][:1]])

    edit_tensors(folder, widen)
    with pytest.raises(CheckpointRefused, match=f"head key '{re.escape(key)}' has shape"):
        load_reward_model(folder)


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_unexpected_key_is_refused_by_name(tmp_path: Path, name: str) -> None:
    folder = copy_of(name, tmp_path)
    edit_tensors(folder, lambda tensors: tensors.update({"v_head.weight": torch.zeros(1, 64)}))
    with pytest.raises(CheckpointRefused, match=r"'v_head\.weight'.* is not known"):
        load_reward_model(folder)


@pytest.mark.parametrize(
    "key",
    ["gating.layers.4.weight", "regression_layer.bias", "score.weight", "v_head.weight"],
)
def test_left_head_key_in_a_file_of_its_own_is_refused_by_name(
    armorm_folder: Path, key: str
) -> None:
    """The library that loads the backbone opens model.safetensors only."""
    save_file({key: torch.zeros(1, 64)}, armorm_folder / "more.safetensors")
    with pytest.raises(
        CheckpointRefused, match=f"'{re.escape(key)}' in more.safetensors is not known"
    ):
        load_reward_model(armorm_folder)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("urm", "score.weight"),
        ("urm", "weights.fc.2.weight"),
        ("qrm", "gating.layers.0.weight"),
        ("seqcls-llama-1", "score.weight"),
    ],
)
def test_vector_in_place_of_a_head_matrix_is_refused_by_name(
    tmp_path: Path, name: str, key: str
) -> None:
    folder = copy_of(name, tmp_path)
    edit_tensors(folder, lambda tensors: tensors.update({key: tensors[key].flatten().clone()}))
    with pytest.raises(CheckpointRefused, match=f"head key '{re.escape(key)}' has shape"):
        load_reward_model(folder)


def test_urm_without_numbered_layers_is_refused(tmp_path: Path) -> None:
    """Its weighting layers have a name that no published checkpoint gives them."""
    folder = copy_of("urm", tmp_path)

    def rename(tensors: dict[str, torch.Tensor]) -> None:
        for key in [key for key in tensors if key.startswith("weights.fc.")]:
            tensors[key.replace("weights.fc.", "weights.fc.layer")] = tensors.pop(key)

    edit_tensors(folder, rename)
    with pytest.raises(CheckpointRefused, match=r"'weights\.fc\.layer.* is not known"):
        load_reward_model(folder)


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_missing_backbone_key_is_refused_by_name(tmp_path: Path, name: str) -> None:
    folder = copy_of(name, tmp_path)
    key = "model.layers.1.mlp.up_proj.weight"
    edit_tensors(folder, lambda tensors: tensors.pop(key))
    with pytest.raises(CheckpointRefused, match=r"layers\.1\.mlp\.up_proj\.weight.*missing"):
        load_reward_model(folder)


def test_mis_shaped_backbone_key_is_refused_with_both_shapes(armorm_folder: Path) -> None:
    key = "model.layers.0.mlp.up_proj.weight"
    edit_tensors(armorm_folder, lambda tensors: tensors.update({key: torch.zeros(3, 64)}))
    named = r"layers\.0\.mlp\.up_proj\.weight' .* has shape \[3, 64\], .* asks for \[160, 64\]"
    with pytest.raises(CheckpointRefused, match=named):
        load_reward_model(armorm_folder)


@pytest.mark.parametrize(
    "key",
    ["regression_layer.weight", "gating.layers.1.weight", "model.layers.0.self_attn.q_proj.weight"],
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(
    armorm_folder: Path, key: str, value: float
) -> None:
    def poison(tensors: dict[str, torch.Tensor]) -> None:
        tensors[key].view(-1)[3] = value

    edit_tensors(armorm_folder, poison)
    named = key.removeprefix("model.").replace(".", r"\.")
    with pytest.raises(CheckpointRefused, match=f"{named}.* holds NaN or infinity"):
        load_reward_model(armorm_folder)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_objectives": 18}, "regression_layer.weight"),
        ({"gating_n_hidden": 2}, "gating.layers.2.weight"),
        ({"gating_hidden_dim": 16}, "gating.layers.0.weight"),
        ({"gating_temperature": None}, "gating_temperature"),
        ({"gating_temperature": 0}, "gating_temperature"),
        ({"num_objectives": None}, "num_objectives"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_config_that_does_not_fit_the_tensors_is_refused(
    armorm_folder: Path, changes: dict[str, Any], reason: str
) -> None:
    edit_config(armorm_folder, **changes)
    with pytest.raises(CheckpointRefused, match=reason):
        load_reward_model(armorm_folder)


def test_quantile_checkpoint_is_not_taken_for_armorm(tmp_path: Path) -> None:
    """Both have one class name; without its config key, QRM's 361 rows fit nothing."""
    folder = copy_of("qrm", tmp_path)
    edit_config(folder, num_quantiles=None)
    with pytest.raises(CheckpointRefused, match="regression_layer.weight"):
        load_reward_model(folder)


def test_class_logits_are_not_taken_for_rewards(tmp_path: Path) -> None:
    folder = copy_of("seqcls-mistral-10", tmp_path)
    edit_config(folder, problem_type="single_label_classification")
    with pytest.raises(CheckpointRefused, match="logits of classes"):
        load_reward_model(folder)


def test_folder_without_heads_is_refused(tmp_path: Path) -> None:
    folder = copy_of("seqcls-llama-1", tmp_path)
    edit_tensors(folder, lambda tensors: tensors.pop("score.weight"))
    with pytest.raises(CheckpointRefused, match="none of the head keys"):
        load_reward_model(folder)
