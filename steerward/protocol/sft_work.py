"""What the server and the process that fine-tunes say to each other: a file there, lines back.

The process (`steerward.protocol.process`) is given a job file. It prints lines of JSON: how far it
is, and at the end, if it failed, why. What it made lies in a folder, with a report.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from steerward.protocol.rsf import TrainingSettings
from steerward.protocol.wire import AnswerModel, RequestModel

REPORT_FILE = "report.json"
"""In the folder of a finished fine-tuning."""
MASTER = "master"
"""In the folder of whole weights that are stored with fewer bits: the same in float32."""


class SftJob(RequestModel):
    """One fine-tuning. The paths are those of `steerward.jobs.rsf.ports.TrainingWork`."""

    data: Path
    """JSON lines: {"messages": [...]}, the last turn the assistant's, which alone is learned."""
    base: Path
    """Checkpoint folder of the policy that the job began with."""
    start: Path | None
    """Folder of the iteration before, or adapter; None: begin with `base`."""
    out: Path
    """Folder to be made: whole, or not at all."""
    work: Path
    """Folder for what lets a killed training go on."""
    seed: int = Field(ge=0)
    training: TrainingSettings


class SftProgress(AnswerModel):
    """A line: an optimiser step was made."""

    step: int
    steps: int
    """In all."""
    loss: float
    """Mean cross-entropy of the step, in nats a token."""
    tokens: int
    """Of completions, learned so far."""


class SftReport(AnswerModel):
    """How a fine-tuning went; written into its folder."""

    loss: float
    """Mean cross-entropy of the last tenth of the steps, in nats a token."""
    kl: float
    """From the policy that the job began with, in nats a token of the completions of (at most
    256 of) the examples."""
    tokens: int
    """Of completions, learned; epochs counted."""
    steps: int
    left_out: int = 0
    """Conversations that were not learned, for they do not fit the policy."""
    seconds: float
    """Of training, where it was broken off too."""
    learning_rate: float
    """Highest."""
    parameters: int
    """Numbers that were trained."""
    versions: dict[str, str]
    """Of libraries."""
