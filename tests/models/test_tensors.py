"""Only whole safetensors files are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from steerward.models.tensors import INDEX_NAME, TensorFiles
from steerward.protocol.errors import CheckpointRefused


def test_pickles_are_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(CheckpointRefused, match=r"pickled weights \(pytorch_model.bin\)"):
        TensorFiles(tmp_path)


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointRefused, match="no safetensors file"):
        TensorFiles(tmp_path)


def test_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(4)}, tmp_path / "model.safetensors")
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-3])
    with pytest.raises(CheckpointRefused, match=r"model\.safetensors is damaged"):
        TensorFiles(tmp_path)


def test_absent_shard_is_refused_by_name(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(4)}, tmp_path / "model-00001-of-00002.safetensors")
    index = {
        "weight_map": {
            "a": "model-00001-of-00002.safetensors",
            "b": "model-00002-of-00002.safetensors",
        }
    }
    (tmp_path / INDEX_NAME).write_text(json.dumps(index))
    with pytest.raises(CheckpointRefused, match="model-00002-of-00002"):
        TensorFiles(tmp_path)


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"weight_map": 3}']
)
def test_damaged_index_is_refused_by_name(tmp_path: Path, text: str) -> None:
    save_file({"a": torch.zeros(4)}, tmp_path / "model.safetensors")
    (tmp_path / INDEX_NAME).write_text(text)
    with pytest.raises(CheckpointRefused, match=r"index\.json is damaged"):
        TensorFiles(tmp_path)


def test_key_in_two_files_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(4)}, tmp_path / "one.safetensors")
    save_file({"a": torch.ones(4)}, tmp_path / "two.safetensors")
    with pytest.raises(CheckpointRefused, match=r"'a' stands in both one\.safetensors and two"):
        TensorFiles(tmp_path)


def test_half_precision_heads_are_read_as_float32(tmp_path: Path) -> None:
    values = torch.tensor([[0.1, 0.2]], dtype=torch.bfloat16)
    save_file({"head": values}, tmp_path / "model.safetensors")
    taken = TensorFiles(tmp_path).take("head", (1, 2))
    assert taken.dtype == torch.float32
    assert torch.equal(taken, values.float())
