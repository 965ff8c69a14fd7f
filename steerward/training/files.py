"""Files that a kill at any moment leaves whole: written beside, then moved into place."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file in one step.

    Raises:
        ValueError: If a number is NaN or infinite, which JSON does not know.
    """
    temporary = path.with_name(path.name + ".tmp")
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file in one step."""
    temporary = path.with_name(path.name + ".tmp")
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, temporary)
    os.replace(temporary, path)
