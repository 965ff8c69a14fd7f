"""What transformers loads from a folder: nothing missing, nothing left over, no code run."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from steerward.protocol.errors import CheckpointRefused

# What transformers raises for files that it cannot make sense of.
LOADING_ERRORS = (
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    StrictDataclassError,
    TypeError,
    ValueError,
)


def load_pretrained(
    factory: Any,
    folder: Path,
    *,
    what: str,
    dtype: torch.dtype,
    other_keys: Collection[str] = (),
    may_miss: tuple[str, ...] = (),
) -> PreTrainedModel:
    """Return the model of a folder with ``config.json`` and safetensors files, on the CPU.

    Args:
        factory: Such as ``AutoModel``.
        folder: To load from.
        what: Word for it in errors.
        dtype: To load into.
        other_keys: Keys of the files that are not the model's.
        may_miss: Beginnings of keys that need not be there.

    Raises:
        CheckpointRefused: With the first missing, unexpected or mis-shaped key.
    """
    with quiet_loading():
        try:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            model, report = factory.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                # Without it, the error names no key.
                ignore_mismatched_sizes=True,
            )
        except LOADING_ERRORS as error:
            raise CheckpointRefused(
                f"the {what} in {folder} did not load ({type(error).__name__}): {error}; "
                "look at the model_type and sizes of its config.json"
            ) from error
    missing = sorted(key for key in report["missing_keys"] if not key.startswith(may_miss))
    unexpected = sorted(set(report["unexpected_keys"]).difference(other_keys))
    for key, found, wanted in sorted(report["mismatched_keys"]):
        raise CheckpointRefused(
            f"{what} key {key!r} in {folder} has shape {list(found)}, config.json asks for "
            f"{list(wanted)}; these files do not belong together"
        )
    if missing:
        raise CheckpointRefused(f"{what} key {missing[0]!r} is missing in {folder}")
    if unexpected:
        raise CheckpointRefused(f"key {unexpected[0]!r} in {folder} is not known")
    _check_finite(model, folder, what=what)
    return model


def move(model: PreTrainedModel, device: torch.device) -> None:
    """Move a loaded model to its device, into memory of its own.

    What is read from safetensors may be the file itself, mapped: whoever wrote new weights over
    it would change those that are served, under the old version.
    """
    if device.type != "cpu":
        model.to(device)  # pyright: ignore[reportArgumentType] (stub of another method)
        return
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data = tensor.data.clone()


def read_config(folder: Path) -> Mapping[str, Any]:
    """Return the contents of ``config.json``.

    Raises:
        CheckpointRefused: If it is absent or no JSON object.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointRefused(f"{folder} has no config.json")
    try:
        config: object = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointRefused(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointRefused(f"{path} is not a JSON object")
    return cast("dict[str, Any]", config)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a folder.

    Raises:
        CheckpointRefused: If it cannot be loaded.
    """
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except LOADING_ERRORS as error:
        raise CheckpointRefused(
            f"the tokenizer in {folder} did not load ({type(error).__name__}): {error}"
        ) from error


def _check_finite(model: PreTrainedModel, folder: Path, *, what: str) -> None:
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointRefused(f"{what} key {key!r} in {folder} holds NaN or infinity")


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep transformers from printing reports of keys, which are ours to read."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
