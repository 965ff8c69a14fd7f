"""Fine-tuning jobs on the wire, in OpenAI's shape, with methods of our own and pausing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from steerward.protocol.alignment import (
    CgpoSettings,
    GrpoSettings,
    ModpoSettings,
    PamaSettings,
)
from steerward.protocol.mapl import MaplSettings
from steerward.protocol.rsf import RsfSettings
from steerward.protocol.sampling import Unsupported
from steerward.protocol.wire import AnswerModel, RequestModel, Text

JobStatus = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
FINAL_STATUSES: frozenset[JobStatus] = frozenset({"succeeded", "failed", "cancelled"})
EventLevel = Literal["info", "warn", "error"]
EventType = Literal["message", "metrics"]

JobMethod = Literal["rsf", "pama", "grpo", "cgpo", "modpo", "mapl"]
AlignSettings = PamaSettings | GrpoSettings | CgpoSettings | ModpoSettings | MaplSettings
"""Of methods that train once, on rewards as they are drawn, or on preferences."""
MethodSettings = RsfSettings | AlignSettings
SETTINGS: Mapping[JobMethod, type[MethodSettings]] = {
    "rsf": RsfSettings,
    "pama": PamaSettings,
    "grpo": GrpoSettings,
    "cgpo": CgpoSettings,
    "modpo": ModpoSettings,
    "mapl": MaplSettings,
}

_MOST_METADATA = 16
_SEEDS_OF_TRAINERS = 2**31


class Method(RequestModel):
    """How the policy is trained: the type, and under its name the settings that are not default."""

    type: JobMethod
    rsf: RsfSettings | None = None
    pama: PamaSettings | None = None
    grpo: GrpoSettings | None = None
    cgpo: CgpoSettings | None = None
    modpo: ModpoSettings | None = None
    """Never without `margins`."""
    mapl: MaplSettings | None = None

    @model_validator(mode="after")
    def _settings_are_of_the_type(self) -> Self:
        given = [name for name in SETTINGS if name != self.type and getattr(self, name) is not None]
        if given:
            raise ValueError(
                f"the type is {self.type!r}, and settings are given of {', '.join(given)}; give "
                f"{self.type} alone, or change the type"
            )
        if self.type == "modpo" and self.modpo is None:
            raise ValueError("modpo.margins is needed: the other objectives, with their weights")
        return self

    @property
    def settings(self) -> MethodSettings:
        """Of the type: as given, or the defaults."""
        found: MethodSettings | None = getattr(self, self.type)
        return SETTINGS[self.type].model_validate({}) if found is None else found


class JobRequest(RequestModel):
    """Body of ``POST /v1/fine_tuning/jobs``."""

    model: Text
    """Name of the policy to start from, or of a fine-tuned one."""
    training_file: Text
    """Id of a file of prompts: rows {"prompt": "..."} or {"messages": [...]}, which end with a
    user turn; for `modpo` and `mapl` of preferences, which have `chosen` and `rejected` beside
    it."""
    validation_file: Text | None = None
    """Id of a file of the same kind that the policy is measured on."""
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

    @model_validator(mode="after")
    def _seed_fits_the_method(self) -> Self:
        if self.method.type != "rsf" and (self.seed or 0) >= _SEEDS_OF_TRAINERS:
            raise ValueError(
                f"the seed is {self.seed}, limit {_SEEDS_OF_TRAINERS - 1} for {self.method.type}; "
                "lower it"
            )
        return self

    @property
    def used_seed(self) -> int:
        """Of everything that the job draws: the one of the settings, else the job's, else 0."""
        settings = self.method.settings
        given = settings.seed if "seed" in settings.model_fields_set else None
        return next((seed for seed in (given, self.seed) if seed is not None), 0)


class JobError(AnswerModel):
    """Why a job failed, or was paused by itself."""

    code: str
    message: str
    param: str | None = None


class IterationProgress(AnswerModel):
    """What is known of one iteration; of methods without, of one evaluation."""

    iteration: int
    """0 is the policy that the job began with. Of an evaluation: optimiser steps before it."""
    sampled: int = 0
    """Completions drawn."""
    accepted: int = 0
    """Of these, selected for fine-tuning."""
    sampled_tokens: int = 0
    trained_tokens: int = 0
    rewards: dict[str, float] = {}
    """Mean reward of the sampled completions, by objective of the directions. Of an evaluation: of
    the answers to held-out prompts, by reward."""
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
    """0: the method has none, and counts its optimiser steps only."""
    done: int = 0
    """Of the step at hand: prompts sampled or measured, optimiser steps made."""
    total: int = 0
    tokens_per_s: float | None = None
    """Of sampling and of measuring; None in other steps."""
    steps_per_s: float | None = None
    """Optimiser steps, of methods without iterations."""
    sampled_tokens: int = 0
    trained_tokens: int = 0
    history: list[IterationProgress] = []
    """Of methods without iterations the first evaluation, the last, and up to 256 between, evenly
    spaced; the file of results has all of them."""


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
    """Ids of files, as JSON lines: every sample; of methods without iterations, every step's log
    and every evaluation."""
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
    """The policy after one iteration, or at the end."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"] = "fine_tuning.job.checkpoint"
    created_at: int
    fine_tuning_job_id: str
    fine_tuned_model_checkpoint: str
    """Folder of the weights on the server's machine; `steerward serve --policy` takes it, or of an
    adapter `--adapter`."""
    step_number: int
    """Iteration; of methods without, optimiser steps."""
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
