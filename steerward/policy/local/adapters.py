"""LoRA adapters: several sets of small weights on one model, by PEFT."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Set
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open

from steerward.models.pretrained import LOADING_ERRORS, quiet_loading
from steerward.models.source import weight_version
from steerward.policy.local.model import Weights
from steerward.protocol.errors import CheckpointRefused, SteerwardError


class Adapters:
    """The adapters inside a model; for the device thread only."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._by_name: dict[str, Weights] = {}
        self._retired: list[Weights] = []

    def add(self, weights: Weights, name: str, folder: Path) -> Weights:
        """Load an adapter beside the weights, and return them with it.

        An earlier one of that name is retired.

        Args:
            weights: Of the model it was trained on.
            name: Under which it is served.
            folder: With adapter_config.json and adapter_model.safetensors.

        Raises:
            CheckpointRefused: If it is none, or does not fit the model.
            SteerwardError: If PEFT is not installed.
        """
        path = folder / "adapter_model.safetensors"
        if not (folder / "adapter_config.json").is_file() or not path.is_file():
            raise CheckpointRefused(
                f"{folder} holds no LoRA adapter: it needs adapter_config.json and "
                "adapter_model.safetensors"
            )
        # Inside the model each has a name of its own, so that one can take over from another.
        inner = f"{_identifier(name)}_{next(self._numbers)}"
        _load(weights, inner, folder)
        version = weight_version(folder)
        adapted = Weights(weights.model, version, weights.max_positions, inner)
        if name in self._by_name:
            self._retired.append(self._by_name[name])
        self._by_name[name] = adapted
        return adapted

    def take_out_retired(self, in_use: Set[Weights]) -> None:
        """Take those retired out of the model that no request runs with."""
        for weights in [w for w in self._retired if w not in in_use]:
            assert weights.adapter is not None
            weights.model.delete_adapter(weights.adapter)
            self._retired.remove(weights)


def _identifier(name: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in name)


def _load(weights: Weights, inner: str, folder: Path) -> None:
    try:
        with quiet_loading(), warnings.catch_warnings():
            # Several adapters on one model are what this is for.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            weights.model.load_adapter(str(folder), adapter_name=inner)
    except ImportError as error:
        raise SteerwardError(
            "adapters need 'peft', which is not installed; run: pip install 'steerward[lora]'"
        ) from error
    except (*LOADING_ERRORS, SafetensorError) as error:
        with suppress(*LOADING_ERRORS):  # It may be there in part, or not at all.
            weights.model.delete_adapter(inner)
        raise CheckpointRefused(
            f"the adapter in {folder} does not fit ({type(error).__name__}): {error}"
        ) from error
    weights.model.eval()
    _check_nothing_is_random(weights, inner, folder / "adapter_model.safetensors")


def _check_nothing_is_random(weights: Weights, inner: str, path: Path) -> None:
    """Refuse an adapter of which the file and the model have different parts.

    transformers would fill what is missing with random numbers, and leave the rest aside.
    """
    with safe_open(path, framework="pt") as file:
        given = {key.removeprefix("base_model.model.") for key in file.keys()}  # noqa: SIM118
    held = {
        key.replace(f".{inner}", "") for key in weights.model.state_dict() if f".{inner}." in key
    }
    if given != held:
        weights.model.delete_adapter(inner)
        raise CheckpointRefused(
            f"{path} and adapter_config.json beside it do not belong together, or to this model: "
            f"{min(given ^ held)!r} is in one of them only"
        )
