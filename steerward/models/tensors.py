"""Tensors of a checkpoint folder, by key, from safetensors files and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from steerward.protocol.errors import CheckpointRefused

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
INDEX_NAME = "model.safetensors.index.json"


class TensorFiles:
    """The keys of a folder's safetensors files; tensors are read when taken.

    Args:
        folder: Checkpoint folder.

    Raises:
        CheckpointRefused: If there are no safetensors files, one is damaged, a shard that the
            index names is absent, or a key stands in two files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file_of: dict[str, Path] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self.taken: set[str] = set()
        paths = sorted(folder.glob("*.safetensors"))
        if not paths:
            raise CheckpointRefused(_no_safetensors(folder))
        self._check_index(paths)
        for path in paths:
            self._read_header(path)

    def _check_index(self, paths: Sequence[Path]) -> None:
        index = self.folder / INDEX_NAME
        if not index.is_file():
            return
        found = {path.name for path in paths}
        for shard in sorted(_shards(index) - found):
            raise CheckpointRefused(f"shard {shard!r} that {INDEX_NAME} names is not in the folder")

    def _read_header(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 (not a mapping)
                    if key in self._file_of:
                        raise CheckpointRefused(
                            f"key {key!r} stands in both {self._file_of[key].name} and {path.name}"
                        )
                    self._file_of[key] = path
                    self._shapes[key] = tuple(file.get_slice(key).get_shape())
        except SafetensorError as error:
            raise CheckpointRefused(f"{path.name} is damaged: {error}") from error

    def __contains__(self, key: str) -> bool:
        return key in self._file_of

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def file_name(self, key: str) -> str:
        """Return the name of the file that holds a key."""
        return self._file_of[key].name

    def num_rows(self, key: str) -> int:
        """Return the rows of a head matrix that is there.

        Raises:
            CheckpointRefused: If it is missing, or not a matrix.
        """
        shape = self._shape(key)
        if len(shape) != 2:
            raise CheckpointRefused(
                f"head key {key!r} has shape {list(shape)}, expected [any, any]"
            )
        return shape[0]

    def _shape(self, key: str) -> tuple[int, ...]:
        if key not in self._shapes:
            raise CheckpointRefused(f"head key {key!r} is missing in {self.folder}")
        return self._shapes[key]

    def take(self, key: str, shape: Sequence[int | None]) -> Tensor:
        """Return a head tensor in float32.

        Args:
            key: Its key.
            shape: What it must be; None matches any size.

        Raises:
            CheckpointRefused: If the key is missing, mis-shaped, or holds NaN or infinity.
        """
        found = self._shape(key)
        fits = len(found) == len(shape) and all(
            want is None or want == have for want, have in zip(shape, found, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise CheckpointRefused(
                f"head key {key!r} has shape {list(found)}, expected [{wanted}]"
            )
        with safe_open(self._file_of[key], framework="pt") as file:
            # It may be the file itself, mapped, which somebody may write over.
            tensor = file.get_tensor(key).clone()
        self.taken.add(key)
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointRefused(f"head key {key!r} holds NaN or infinity")
        return tensor.float()


def _shards(index: Path) -> set[str]:
    try:
        content: Any = json.loads(index.read_text(encoding="utf-8"))
        shards = set(content["weight_map"].values())
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointRefused(
            f"{index} is damaged: it must be a JSON object with a weight_map from key to file "
            f"({type(error).__name__}: {error})"
        ) from error
    if not all(isinstance(shard, str) for shard in shards):
        raise CheckpointRefused(f"{index} is damaged: its weight_map names what are no files")
    return shards


def _no_safetensors(folder: Path) -> str:
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        return (
            f"{folder} holds only pickled weights ({pickles[0]}), which can run code when opened; "
            "convert them to safetensors first"
        )
    return f"{folder} holds no safetensors file"
