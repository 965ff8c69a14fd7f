"""Fine-tuning jobs on the wire, in OpenAI's shape, with the method `rsf` and pausing."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from steerward.protocol.rsf import RsfSettings
from steerward.protocol.sampling import Unsupported
from steerward.protocol.wire import AnswerModel, RequestModel, Text

JobStatus = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
FINAL_STATUSES: frozenset[JobStatus] = frozenset({"succeeded", "failed", "cancelled"})
EventLevel = Literal["info", "warn", "error"]
EventType = Literal["message", "metrics"]

_MOST_METADATA = 16


class Method(RequestModel):
    """How the policy is trained."""

    type: Literal["rsf"]
    rsf: RsfSettings = RsfSettings()


class JobRequest(RequestModel):
    """Body of ``POST /v1/fine_tuning/jobs``."""

    model: Text
    """Name of the policy to start from, or of a fine-tuned one."""
    training_file: Text
    """Id of a file of prompts: rows {"prompt": "..."} or {"messages": [...]}, which end with a
    user turn."""
    validation_file: Text | None = None
    """Id of a file of prompts that the policy is measured on."""
    method: Method
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    suffix: Annotated[Text, Field(min_length=1, max_length=64, pattern=r"^[\w.-]+$")] | None = None
    """Part of the fine-tuned model's name: letters, digits, dots, dashes and underscores."""
    metadata: dict[Text, Text] | None = None
    """Up to 16 pairs of texts, of up to 64 and 512 characters, to find the job by."""

    hyperparameters: Unsupported = None
    integrations: Unsupported = None

    @field_validator("metadata")
    @classmethod
    def _is_small(cls, metadata: dict[str, str] | None) -> dict[str, str] | None:
        for key, value in (metadata or {}).items():
            if len(key) > 64 or len(value) > 512:
                raise ValueError(
                    "keys have up to 64 characters and values up to 512; "
                    f"one has {len(key)} and {len(value)}"
                )
        if metadata and len(metadata) > _MOST_METADATA:
            raise ValueError(f"{len(metadata)} pairs, limit {_MOST_METADATA}")
        return metadata


class JobError(AnswerModel):
    """Why a job failed, or was paused by itself."""

    code: str
    message: str
    param: str | None = None


class IterationProgress(AnswerModel):
    """What is known of one iteration."""

    iteration: int
    """0 is the policy that the job began with."""
    sampled: int = 0
    """Completions drawn."""
    accepted: int = 0
    """Of these, selected for fine-tuning."""
    sampled_tokens: int = 0
    trained_tokens: int = 0
    rewards: dict[str, float] = {}
    """Mean reward of the sampled completions, by objective of the directions."""
    selected_rewards: dict[str, float] = {}
    """The same of the selected ones."""
    loss: float | None = None
    """Mean cross-entropy of the last steps of fine-tuning, in nats a token."""
    kl: float | None = None
    """Of the policy from the one that the job began with, in nats a token of selected
    completions."""
    direction_score: float | None = None
    """Mean over evaluation prompts and directions, on the scale of `direction_score`."""
    weight_version: str | None = None
    """Of the policy that the iteration led to."""
    seconds: dict[str, float] = {}
    """Wall time by step: sampling, scoring, selection, training, swap, evaluation. Sampling and
    scoring overlap."""


class JobProgress(AnswerModel):
    """Where a job is."""

    step: Literal[
        "waiting",
        "evaluating",
        "sampling",
        "selecting",
        "training",
        "swapping",
        "reporting",
        "done",
    ] = "waiting"
    iteration: int = 0
    iterations: int
    done: int = 0
    """Of the step at hand: prompts sampled or measured, optimiser steps made."""
    total: int = 0
    tokens_per_s: float | None = None
    """Of sampling and of measuring; None in other steps."""
    sampled_tokens: int = 0
    trained_tokens: int = 0
    history: list[IterationProgress] = []


class Job(AnswerModel):
    """A fine-tuning job."""

    id: str
    object: Literal["fine_tuning.job"] = "fine_tuning.job"
    model: str
    created_at: int
    """Seconds since 1970."""
    finished_at: int | None = None
    status: JobStatus
    error: JobError | None = None
    fine_tuned_model: str | None = None
    """Name of the new policy, when the job has succeeded."""
    training_file: str
    validation_file: str | None = None
    result_files: list[str] = []
    """Ids of files: every sample, as JSON lines."""
    trained_tokens: int | None = None
    seed: int
    method: dict[str, Any]
    """As used: with all defaults."""
    metadata: dict[str, str] | None = None
    estimated_finish: int | None = None
    progress: JobProgress
    # OpenAI's, for its clients.
    organization_id: str = "steerward"
    hyperparameters: dict[str, Any] = {}
    integrations: list[Any] = []


class JobList(AnswerModel):
    """Answer of ``GET /v1/fine_tuning/jobs``, newest first."""

    object: Literal["list"] = "list"
    data: list[Job]
    has_more: bool


class JobEvent(AnswerModel):
    """Something that happened to a job."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: EventLevel
    message: str
    type: EventType = "message"
    data: dict[str, Any] | None = None


class JobEventList(AnswerModel):
    """Answer of ``GET /v1/fine_tuning/jobs/{id}/events``, newest first."""

    object: Literal["list"] = "list"
    data: list[JobEvent]
    has_more: bool


class JobCheckpoint(AnswerModel):
    """The policy after one iteration."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: str
    """Folder of the weights on the server's machine; `steerward serve --policy` takes it, or of an
    adapter `--adapter`."""
    step_number: int
    """Iteration."""
    metrics: dict[str, float | None]
    weight_version: str


class JobCheckpointList(AnswerModel):
    """Answer of ``GET /v1/fine_tuning/jobs/{id}/checkpoints``, newest first."""

    object: Literal["list"] = "list"
    data: list[JobCheckpoint]
    has_more: bool
    first_id: str | None
    last_id: str | None


class ModelDeleted(AnswerModel):
    """Answer of ``DELETE /v1/models/{model}``."""

    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True
