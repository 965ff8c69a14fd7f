"""LoRA adapters: several sets of small weights on one model, by PEFT."""

from __future__ import annotations

import itertools
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from steerward.models.pretrained import LOADING_ERRORS, quiet_loading
from steerward.models.source import weight_version
from steerward.policy.local.model import Weights
from steerward.protocol.errors import CheckpointRefused, SteerwardError

# Inside the model each has a name of its own, so that one can take over from another.
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """What the files of an adapter hold."""

    folder: Path
    config: Any
    """Of PEFT."""
    tensors: dict[str, Tensor]
    version: str


def read_adapter(folder: Path) -> AdapterFiles:
    """Read an adapter, in whatever thread.

    Args:
        folder: With adapter_config.json and adapter_model.safetensors.

    Raises:
        CheckpointRefused: If it is none, or holds NaN or infinity.
        SteerwardError: If PEFT is not installed.
    """
    path = folder / "adapter_model.safetensors"
    if not (folder / "adapter_config.json").is_file() or not path.is_file():
        raise CheckpointRefused(
            f"{folder} holds no LoRA adapter: it needs adapter_config.json and "
            "adapter_model.safetensors"
        )
    try:
        from peft import PeftConfig
    except ImportError as error:
        raise SteerwardError(
            "adapters need 'peft', which is not installed; run: pip install 'steerward[lora]'"
        ) from error
    try:
        # Copies: what is read may be the file itself, mapped, which somebody may write over.
        tensors = {key: tensor.clone() for key, tensor in load_file(path).items()}
        files = AdapterFiles(
            folder, PeftConfig.from_pretrained(str(folder)), tensors, weight_version(folder)
        )
    except (*LOADING_ERRORS, SafetensorError) as error:
        raise _does_not_fit(folder, error) from error
    for key, tensor in files.tensors.items():
        if not bool(tensor.isfinite().all()):
            raise CheckpointRefused(f"adapter key {key!r} in {folder} holds NaN or infinity")
    return files


def put_in(weights: Weights, name: str, files: AdapterFiles) -> Weights:
    """Put an adapter into the model of the weights; for the thread that runs the model.

    Args:
        weights: Of the model it was trained on.
        name: Under which it is served.
        files: Of the adapter.

    Returns:
        The weights with the adapter.

    Raises:
        CheckpointRefused: If it does not fit the model.
    """
    inner = f"{_identifier(name)}_{next(_numbers)}"
    model = weights.model
    try:
        with quiet_loading(), warnings.catch_warnings():
            # Several adapters on one model are what this is for.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            model.load_adapter(
                peft_config=files.config,
                adapter_state_dict=files.tensors,
                adapter_name=inner,
            )
    except (*LOADING_ERRORS, SafetensorError) as error:
        with suppress(*LOADING_ERRORS):  # It may be there in part, or not at all.
            model.delete_adapter(inner)
        raise _does_not_fit(files.folder, error) from error
    model.eval()
    adapted = Weights(
        model,
        files.version,
        weights.max_positions,
        weights.num_parameters + sum(tensor.numel() for tensor in files.tensors.values()),
        adapter=inner,
        base_version=weights.version,
    )
    _check_nothing_is_random(adapted, files)
    return adapted


def take_out(weights: Weights) -> None:
    """Take the adapter of weights out of their model; for the thread that runs the model."""
    assert weights.adapter is not None
    with warnings.catch_warnings():
        # Which one is active is said before each step.
        warnings.filterwarnings("ignore", message="Adapter .* was active which is now deleted")
        weights.model.delete_adapter(weights.adapter)


def _identifier(name: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in name)


def _does_not_fit(folder: Path, error: Exception) -> CheckpointRefused:
    return CheckpointRefused(
        f"the adapter in {folder} does not fit ({type(error).__name__}): {error}"
    )


def _check_nothing_is_random(weights: Weights, files: AdapterFiles) -> None:
    """Refuse an adapter of which the file and the model have different parts.

    transformers would fill what is missing with random numbers, and leave the rest aside.
    """
    given = {key.removeprefix("base_model.model.") for key in files.tensors}
    inner = weights.adapter
    held = {
        key.replace(f".{inner}", "") for key in weights.model.state_dict() if f".{inner}." in key
    }
    if given != held:
        take_out(weights)
        raise CheckpointRefused(
            f"the tensors in {files.folder} and adapter_config.json beside them do not belong "
            f"together, or to this model: {min(given ^ held)!r} is in one of them only"
        )
