"""Where a checkpoint comes from: shipped, a local folder, or a hub id.

Only safetensors, JSON and template files are ever fetched, and nothing is fetched unless a hub
id was asked for.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from steerward.protocol.errors import CheckpointRefused, NotFound

POCKET = "pocket"
POCKET_POLICY = "pocket-policy"
# What ships with the package, by name; the folders are called the same.
_SHIPPED = (POCKET, POCKET_POLICY)

_FETCHED = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
# Beside the weights, what a score depends on.
_NAMES = {
    "adapter_config.json",
    "added_tokens.json",
    "chat_template.jinja",
    "config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def resolve_source(source: str) -> Path:
    """Return the local folder of a checkpoint.

    Args:
        source: ``pocket``, ``pocket-policy``, a folder, or a hub id as ``owner/name`` or
            ``owner/name@revision``.

    Raises:
        NotFound: If it is none of these, or the hub does not have it or cannot be reached.
    """
    if source in _SHIPPED:
        return Path(__file__).parent / source
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    hub_id, _, revision = source.partition("@")
    if not _HUB_ID.fullmatch(hub_id):
        raise NotFound(
            f"there is no folder {source!r} and it is not a hub id (owner/name); "
            f"give a checkpoint folder, a hub id, or one of {', '.join(_SHIPPED)}"
        )
    return _fetch(hub_id, revision or None)


def _fetch(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=_FETCHED))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise NotFound(
            f"{hub_id!r} is neither a local folder nor could it be fetched from the hub "
            f"({type(error).__name__}); check the spelling, the network, HF_TOKEN for gated "
            "repositories, or give a local folder"
        ) from error


def checkpoint_name(source: str) -> str:
    """Return the name a checkpoint is served under unless told otherwise.

    The last component of the path or hub id, without a revision.
    """
    hub_id = source if Path(source).expanduser().is_dir() else source.partition("@")[0]
    return Path(hub_id).expanduser().resolve().name if hub_id in (".", "..") else Path(hub_id).name


def weight_version(folder: Path) -> str:
    """Return the identity of everything in a folder that a score depends on.

    The first 12 hexadecimal digits of a SHA-256 over the contents of weights, configuration,
    tokenizer and template files.
    """
    digest = hashlib.sha256()
    for path in _files_of_a_score(folder):
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]


def _files_of_a_score(folder: Path) -> list[Path]:
    paths = [path for pattern in _FETCHED for path in folder.glob(pattern)]
    # Test expectations and model cards in JSON may lie beside the weights and change no score.
    kept = [path for path in paths if path.suffix == ".safetensors" or path.name in _NAMES]
    if not kept:
        raise CheckpointRefused(f"{folder} holds no checkpoint: no config.json, no safetensors")
    return sorted(kept)
