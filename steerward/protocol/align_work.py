"""What the server and the process that aligns a policy say to each other.

The process (`steerward.protocol.process`) is given a job file. It prints lines of JSON: how far it
is, and how good. For rewards it asks the server that started it over a socket of the file system,
a line there and a line back, and each of several processes that train together asks for itself. So
they need neither an address nor a key of the server.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from steerward.protocol.alignment import AlignMethod
from steerward.protocol.wire import AnswerModel, RequestModel


class AlignJob(RequestModel):
    """One run of an optimiser; the paths are those of `steerward.training.align.run.AlignRun`."""

    method: AlignMethod
    settings: dict[str, Any]
    """Of the method."""
    base: Path
    """Checkpoint folder of the policy that the run begins with."""
    rows: Path
    """JSON lines: prompts, or preferences for `modpo` and `mapl`."""
    validation: Path | None
    """Held-out rows; None: some of `rows` are."""
    out: Path
    """Folder of the run."""
    name: str
    """Of the run, in reports."""
    rewards: Path
    """Socket that rewards are asked for at."""
    reward_weight_version: str
    """Of the reward model that answers there, as long as the job runs."""
    most_candidates: Annotated[int, Field(ge=1)]
    """Most completions of one prompt that it takes at once."""


class AlignStep(AnswerModel):
    """A line: an optimiser step was made."""

    kind: Literal["step"] = "step"
    step: int
    steps: int
    """In all."""
    metrics: dict[str, float]
    """What was logged of it, as far as it is finite."""


class AlignMeasured(AnswerModel):
    """A line: the policy has answered the held-out prompts."""

    kind: Literal["measured"] = "measured"
    step: int
    rewards: dict[str, float]
    """Means by reward."""


class AlignNoted(AnswerModel):
    """A line: what people should know of the run, such as which normalisation runs."""

    kind: Literal["noted"] = "noted"
    text: str


class AlignDone(AnswerModel):
    """The last line of a process that succeeded."""

    kind: Literal["done"] = "done"
    steps: int
    trained_tokens: int
    """Of completions that were learned from."""
    weight_version: str
    """Of the policy at the end."""
    rewards: dict[str, float]
    """Means over the held-out prompts at the end."""


AlignLine = AlignStep | AlignMeasured | AlignNoted | AlignDone
ALIGN_LINES: TypeAdapter[AlignLine] = TypeAdapter(Annotated[AlignLine, Field(discriminator="kind")])
"""Reads a line of the process."""


class RewardGroup(RequestModel):
    """Completions of one prompt."""

    messages: list[dict[str, str]]
    completions: list[str]


class RewardsWanted(RequestModel):
    """A line to the socket."""

    objectives: list[str]
    """Of the reward model, or `score`."""
    groups: list[RewardGroup]


class RewardsGiven(RequestModel):
    """The line back."""

    rewards: list[list[dict[str, float | None]]]
    """By group and completion, each by objective; None: the reward model has none for it."""


LONGEST_LINE_BYTES = 1 << 26
"""Of a line to the socket; a process asks for no more than this at once."""
