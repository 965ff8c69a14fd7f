"""What the store knows of a job and of a fine-tuned policy, as values; and ids of all kinds."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Row

from steerward.jobs.states import JobState, PendingRequest
from steerward.protocol.errors import NotFound, brief
from steerward.protocol.fine_tuning import (
    SETTINGS,
    Job,
    JobError,
    JobMethod,
    JobProgress,
    JobStatus,
    MethodSettings,
)


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as the database has it."""

    id: str
    model: str
    created_at: int
    finished_at: int | None
    status: JobStatus
    error: JobError | None
    fine_tuned_model: str | None
    training_file: str
    validation_file: str | None
    result_files: tuple[str, ...]
    trained_tokens: int | None
    seed: int
    suffix: str | None
    metadata: dict[str, str] | None
    method: JobMethod
    settings: MethodSettings
    """Of the method."""
    progress: JobProgress
    request: PendingRequest
    """What it was asked for and has not done yet."""
    estimated_finish: int | None

    @property
    def state(self) -> JobState:
        """Status and request together."""
        return JobState(self.status, self.request)

    def wire(self) -> Job:
        """Return the job as clients see it."""
        return Job(
            id=self.id,
            model=self.model,
            created_at=self.created_at,
            finished_at=self.finished_at,
            status=self.status,
            error=self.error,
            fine_tuned_model=self.fine_tuned_model,
            training_file=self.training_file,
            validation_file=self.validation_file,
            result_files=list(self.result_files),
            trained_tokens=self.trained_tokens,
            seed=self.seed,
            method={"type": self.method, self.method: self.settings.model_dump(mode="json")},
            metadata=self.metadata,
            estimated_finish=self.estimated_finish,
            progress=self.progress,
        )


@dataclass(frozen=True, slots=True)
class FineTuned:
    """A policy that a job made, and that servers offer under a name."""

    name: str
    job_id: str
    base: str
    """Name of the policy that the job began with."""
    kind: Literal["full", "lora"]
    folder: str
    weight_version: str
    created_at: int


def job_record(row: Row[Any]) -> JobRecord:
    """Return the job in a row of the table `jobs`."""
    values = row._mapping  # Row's public way to its columns by name.
    return JobRecord(
        id=values["id"],
        model=values["model"],
        created_at=int(values["created_at"]),
        finished_at=None if values["finished_at"] is None else int(values["finished_at"]),
        status=values["status"],
        error=None if values["error"] is None else JobError.model_validate(values["error"]),
        fine_tuned_model=values["fine_tuned_model"],
        training_file=values["training_file"],
        validation_file=values["validation_file"],
        result_files=tuple(values["result_files"]),
        trained_tokens=values["trained_tokens"],
        seed=values["seed"],
        suffix=values["suffix"],
        metadata=values["metadata"],
        method=values["method"],
        settings=SETTINGS[values["method"]].model_validate(values["settings"]),
        progress=JobProgress.model_validate(values["progress"]),
        request=values["request"],
        estimated_finish=values["estimated_finish"],
    )


def new_id(prefix: str) -> str:
    """Return an id that nothing else has: the prefix, a dash, and 24 hexadecimal digits."""
    return f"{prefix}-{secrets.token_hex(12)}"


def check_id(value: str, *, prefix: str, what: str) -> None:
    """Refuse what cannot be the id of anything, before a database or a file system sees it.

    Raises:
        NotFound: If it has not the form of `new_id`.
    """
    if not re.fullmatch(rf"{prefix}-[0-9a-f]{{24}}", value):
        raise missing(value, what=what)


def missing(value: str, *, what: str) -> NotFound:
    """Return the error for an id that nothing has."""
    shown = brief(ascii(value)[1:-1])
    return NotFound(f"there is no {what} {shown!r}; check the id, or list what there is")
