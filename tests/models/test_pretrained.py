"""Weights that are served are in memory, whatever happens to their files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from steerward.models.checkpoint import load_reward_model
from steerward.policy.local.checkpoint import load_policy
from tests.policies import save_policy


def write_over(folder: Path) -> None:
    """Write zeros over the weights of a folder, in place."""
    for path in folder.glob("*.safetensors"):
        with path.open("r+b") as file:
            begin = 8 + int.from_bytes(file.read(8), "little")
            file.seek(begin)
            file.write(bytes(os.path.getsize(path) - begin))


def store_in_float32(folder: Path) -> None:
    """Store weights in the type that they are served in: others are copied when they are read."""
    for path in folder.glob("*.safetensors"):
        tensors = {key: tensor.float() for key, tensor in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})


def values(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_reward_model_does_not_follow_its_file(armorm_folder: Path, dtype: str) -> None:
    store_in_float32(armorm_folder)
    model = load_reward_model(armorm_folder, device="cpu", dtype=dtype)
    before = [tensor.clone() for tensor in values(model)]
    write_over(armorm_folder)
    assert len(before) > 10
    assert all(torch.equal(a, b) for a, b in zip(before, values(model), strict=True))


def test_policy_does_not_follow_its_file(tmp_path: Path) -> None:
    folder = save_policy(tmp_path / "policy")
    weights = load_policy(str(folder), device="cpu", dtype="float32").weights
    before = [tensor.clone() for tensor in values(weights.model)]
    write_over(folder)
    assert all(torch.equal(a, b) for a, b in zip(before, values(weights.model), strict=True))


def test_tied_weights_stay_tied() -> None:
    model = load_policy("pocket-policy", device="cpu").weights.model
    embedding = model.get_input_embeddings().weight
    assert model.get_output_embeddings().weight is embedding
