"""Folders of adapters whose implicit rewards are margins: what they must hold, and its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path

from steerward.models.source import weight_version
from steerward.protocol.errors import CheckpointRefused, DatasetRefused, UnknownObjective, brief
from steerward.training.align.run_folder import POLICY_FOLDER, SETTINGS_FILE, read_settings
from steerward.training.files import file_digest

ADAPTER_WEIGHTS = "adapter_model.safetensors"
_FILES = ("adapter_config.json", ADAPTER_WEIGHTS)


def check_adapters(adapters: Mapping[str, Path], *, margins: Collection[str], base: Path) -> None:
    """Refuse adapters that cannot give margins, before anything is loaded.

    That an adapter was trained on another policy of the same shape shows only where the run that
    trained it says so, in the folder above.

    Args:
        adapters: Folders by objective.
        margins: Objectives that have a weight.
        base: Policy that the adapters must be of.

    Raises:
        UnknownObjective: If an objective has no weight.
        CheckpointRefused: If a folder holds no adapter, or one of another policy.
    """
    for name, folder in adapters.items():
        if name not in margins:
            raise UnknownObjective(
                f"margin_adapters names {brief(name)!r}, and the margins are "
                f"{', '.join(map(brief, margins))}; give it a weight there, or leave it out",
                param="margin_adapters",
            )
        check_adapter(folder)
        trained_on = _base_of(folder)
        if trained_on not in (None, weight_version(base)):
            raise CheckpointRefused(
                f"the adapter in {folder} was trained on a policy {trained_on}, and {base} is "
                f"{weight_version(base)}: its implicit rewards would be of another policy; give "
                "its own base, or another adapter"
            )


def check_adapter(folder: Path) -> None:
    """Refuse a folder that holds no adapter.

    Raises:
        CheckpointRefused: With the file that is missing.
    """
    for name in _FILES:
        if not (folder / name).is_file():
            raise CheckpointRefused(
                f"{folder} holds no adapter: {name} is missing; give the folder that PEFT, or a "
                "run with method lora, wrote it to"
            )


def adapter_version(folder: Path) -> str:
    """Return a digest of the files of an adapter."""
    digests = [file_digest(folder / name) for name in _FILES]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:12]


def _base_of(folder: Path) -> str | None:
    """Return the version of the policy that a run trained the adapter on, if one did and tells."""
    folder = folder.resolve()
    if folder.name != POLICY_FOLDER or not (folder.parent / SETTINGS_FILE).is_file():
        return None
    try:
        told = (read_settings(folder.parent).model_extra or {}).get("base")
    except DatasetRefused:
        # Settings of something else.
        return None
    return told if isinstance(told, str) else None
