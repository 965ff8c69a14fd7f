"""Settings of ``steerward rsf``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from steerward.cli.job_settings import ServerSettings
from steerward.config import POSITIONAL


class RsfConfig(ServerSettings):
    """Run rejection-sampling fine-tuning here, with the policy and the reward model of a server.

    As `steerward jobs create`, but the loop and the training run in this process and on this
    machine: the server generates, scores, and serves the new weights. It must see --out under the
    same path, below a folder that it was started with (--weights-dir). If this is stopped, run it
    again to go on where it was.

    Examples:
      steerward serve --weights-dir ./run
      steerward rsf prompts.jsonl --base ./my-policy --out ./run
      steerward rsf prompts.jsonl --base pocket-policy --out ./run --rsf '{"iterations": 5}'
    """

    prompts_file: Annotated[Path, POSITIONAL]
    """File of prompts, JSON lines in UTF-8: {"prompt": "..."} or {"messages": [...]} that end with
    a user turn."""
    base: str
    """Checkpoint of the policy, with the weights that the server serves: a folder, a hub id, or
    `pocket-policy`."""
    out: Path
    """Folder for everything that the loop makes."""
    model: str | None = None
    """Name of the policy on the server, or of what was made of one. Default: the only policy that
    it was started with."""
    name: str | None = None
    """Name to serve new weights under. Default: `rsf:` and the policy's name."""
    validation_file: Path | None = None
    """File of prompts that the policy is measured on. Default: some of the prompts are held out."""
    sft_file: Path | None = None
    """File of conversations to mix in, with sft_share in --rsf."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of everything that is drawn."""
    accelerate_config: Path | None = None
    """Accelerate's configuration for several GPUs of one machine. Default: one process."""
    rsf: dict[str, object] | None = None
    """JSON object, or a TOML table [rsf]: settings of the method, as in a job. Where the server has
    several reward models, reward_model names one."""
