"""Settings of fine-tuning jobs and of uploaded files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from pydantic import Field, SecretStr

from steerward.config.settings import Settings


class JobsConfig(Settings):
    """Where fine-tuning jobs and uploaded files live, and what they may take."""

    reads_environment: ClassVar[bool] = True

    state_dir: Path | None = None
    """Folder of uploaded files, jobs and their checkpoints; everything in it survives restarts.
    Default: steerward below $XDG_STATE_HOME, else ~/.local/state/steerward."""
    jobs: bool = True
    """Run fine-tuning jobs. Without it the server has no files and no jobs."""
    database_url: SecretStr | None = None
    """Database of files and jobs: sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME; servers
    that share one and the state folder share the jobs. Prefer the environment: flags show in
    `ps`. Default: steerward.sqlite in the state folder."""
    job_lease_s: float = Field(default=30.0, ge=1.0)
    """Seconds after which another server takes over the job of one that no longer answers."""
    max_file_bytes: int = Field(default=512 * 1024 * 1024, ge=1)
    """Largest file that can be uploaded."""
    max_file_rows: int = Field(default=1_000_000, ge=1)
    """Most rows of an uploaded file."""
    accelerate_config: Path | None = None
    """Accelerate's configuration for fine-tuning on several GPUs of one machine, as `accelerate
    config` writes it; recipes/rsf has one for FSDP. Default: one process."""
    weights_dir: list[Path] = []
    """Folders below which `POST /v1/models` may load weights, beside the state folder;
    repeatable."""

    @property
    def state_folder(self) -> Path:
        """The folder of files and jobs."""
        home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        return self.state_dir or Path(home) / "steerward"
