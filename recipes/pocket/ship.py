"""Put a trained checkpoint into the package."""

from __future__ import annotations

import shutil
from pathlib import Path

from steerward.models.source import resolve_source


def ship(checkpoint: Path, name: str) -> Path:
    """Replace a model inside the package by its name, and return its folder."""
    target = resolve_source(name)
    arriving, leaving = (target.with_name(f"{target.name}.{word}") for word in ("new", "old"))
    for left_over in (arriving, leaving):
        shutil.rmtree(left_over, ignore_errors=True)
    shutil.copytree(checkpoint, arriving)
    if target.exists():
        target.rename(leaving)
    arriving.rename(target)
    shutil.rmtree(leaving, ignore_errors=True)
    return target
