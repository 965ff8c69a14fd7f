"""Put a trained checkpoint into the package."""

from __future__ import annotations

import shutil
from pathlib import Path

from steerward.models.source import POCKET, resolve_source


def ship(checkpoint: Path) -> Path:
    """Replace the model inside the package and return its folder."""
    target = resolve_source(POCKET)
    arriving = target.with_name(target.name + ".arriving")
    shutil.rmtree(arriving, ignore_errors=True)
    shutil.copytree(checkpoint, arriving)
    shutil.rmtree(target, ignore_errors=True)
    return arriving.rename(target)
