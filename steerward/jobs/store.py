"""Jobs in the database: created, listed, asked for things, run by one server at a time.

Every method is one transaction, and may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import Connection, Engine, exists, select

from steerward.jobs import events, fine_tuned, leases
from steerward.jobs.creation import create
from steerward.jobs.database import reading, writing
from steerward.jobs.paging import page
from steerward.jobs.records import FineTuned, JobRecord, check_id, job_record, missing
from steerward.jobs.states import JobAction, JobState, PendingRequest, asked, moved
from steerward.jobs.tables import job_metadata, jobs
from steerward.protocol.fine_tuning import (
    EventLevel,
    EventType,
    JobCheckpoint,
    JobError,
    JobEvent,
    JobProgress,
    JobRequest,
)

# Named here: inside the class `list` is its method.
JobPage = tuple[list[JobRecord], bool]
EventPage = tuple[list[JobEvent], bool]
CheckpointPage = tuple[list[JobCheckpoint], bool]
Policies = list[FineTuned]


class JobStore:
    """The jobs of a database, and what belongs to them.

    Args:
        engine: From `open_database`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, request: JobRequest, *, seed: int) -> JobRecord:
        """Keep a new job, which waits for a server.

        Args:
            request: As it was sent.
            seed: Of everything that the job draws.

        Raises:
            NotFound: If one of its files is not there, or is deleted at this moment.
        """
        with writing(self._engine) as connection:
            return _found(connection, create(connection, request, seed=seed))

    def get(self, job_id: str) -> JobRecord:
        """Return a job.

        Raises:
            NotFound: If there is none of this id.
        """
        with reading(self._engine) as connection:
            return _found(connection, job_id)

    def list(
        self, *, after: str | None, limit: int, metadata: Mapping[str, str] | None = None
    ) -> JobPage:
        """Return a page of jobs, newest first, and whether there are more.

        Args:
            after: Id of the last job of the page before.
            limit: Most jobs.
            metadata: Pairs that the jobs must have, among others.

        Raises:
            NotFound: If there is no job `after`.
        """
        conditions = [
            exists().where(
                job_metadata.c.job_id == jobs.c.id,
                job_metadata.c.key == key,
                job_metadata.c.value == value,
            )
            for key, value in (metadata or {}).items()
        ]
        with reading(self._engine) as connection:
            position = None if after is None else _sequence(connection, after)
            rows, has_more = page(
                connection,
                jobs,
                *conditions,
                order="sequence",
                position=position,
                limit=limit,
                newest_first=True,
            )
        return [job_record(row) for row in rows], has_more

    def request(self, job_id: str, action: JobAction) -> JobRecord:
        """Do what somebody asks of a job, or let the server that runs it do it.

        Raises:
            NotFound: If there is no such job.
            InvalidRequest: If it makes no sense in the job's status.
        """
        with writing(self._engine) as connection:
            record = _found(connection, job_id, locks=True)
            held = leases.is_held(connection, job_id)
            leases.move(connection, job_id, asked(record.state, action, is_held=held))
            return _found(connection, job_id)

    def acquire(self, owner: str, *, models: Sequence[str], lease_s: float) -> JobRecord | None:
        """Take the oldest job that waits or whose server died; None if there is none.

        Args:
            owner: Name that no other run of a job has, in this or any other process.
            models: Policies that the owner can train.
            lease_s: Seconds for which the job is the owner's, unless it says again that it lives.
        """
        with writing(self._engine) as connection:
            return leases.acquire(connection, owner, models=models, lease_s=lease_s)

    def heartbeat(self, job_id: str, owner: str, *, lease_s: float) -> PendingRequest:
        """Say that the owner lives, and return what the job is asked for.

        Raises:
            LeaseLost: If the job is not the owner's any more.
        """
        with writing(self._engine) as connection:
            return leases.extend(connection, job_id, owner, lease_s=lease_s)

    def save_progress(
        self, job_id: str, owner: str, progress: JobProgress, *, estimated_finish: int | None
    ) -> None:
        """Keep how far a job is.

        Raises:
            LeaseLost: If the job is not the owner's any more.
        """
        values = {"progress": progress.model_dump(), "estimated_finish": estimated_finish}
        with writing(self._engine) as connection:
            leases.change_held(connection, job_id, owner, **values)

    def finish(
        self,
        job_id: str,
        owner: str,
        *,
        status: Literal["succeeded", "failed", "cancelled", "paused"],
        error: JobError | None = None,
        fine_tuned_model: str | None = None,
        result_files: Sequence[str] = (),
        trained_tokens: int | None = None,
    ) -> None:
        """End a job, or pause it, and give it back.

        Raises:
            LeaseLost: If the job is not the owner's any more.
        """
        values: dict[str, Any] = {
            "error": None if error is None else error.model_dump(),
            "fine_tuned_model": fine_tuned_model,
            "result_files": [*result_files],
            "trained_tokens": trained_tokens,
        }
        with writing(self._engine) as connection:
            leases.change_held(connection, job_id, owner, **values)
            leases.move(connection, job_id, moved(JobState("running"), status))

    def release(self, job_id: str, owner: str) -> None:
        """Give a job back to go on elsewhere; one that was asked to pause or end does that.

        Raises:
            LeaseLost: If the job is not the owner's any more.
        """
        with writing(self._engine) as connection:
            leases.give_back(connection, job_id, owner)

    def add_event(
        self,
        job_id: str,
        message: str,
        *,
        level: EventLevel = "info",
        type: EventType = "message",
        data: Mapping[str, Any] | None = None,
    ) -> JobEvent:
        """Keep something that happened to a job.

        Raises:
            NotFound: If there is no such job.
        """
        check_id(job_id, prefix="ftjob", what="job")
        with writing(self._engine) as connection:
            return events.add_event(connection, job_id, message, level=level, type=type, data=data)

    def events(
        self, job_id: str, *, after: str | None, limit: int, newest_first: bool = True
    ) -> EventPage:
        """Return a page of a job's events, and whether there are more.

        Raises:
            NotFound: If there is no such job, or no such event of it.
        """
        with reading(self._engine) as connection:
            _sequence(connection, job_id)
            return events.list_events(
                connection, job_id, after=after, limit=limit, newest_first=newest_first
            )

    def add_checkpoint(
        self,
        job_id: str,
        *,
        folder: str,
        step_number: int,
        metrics: Mapping[str, float | None],
        weight_version: str,
    ) -> JobCheckpoint:
        """Keep a checkpoint, in place of an earlier one of the same step.

        Raises:
            NotFound: If there is no such job.
        """
        check_id(job_id, prefix="ftjob", what="job")
        with writing(self._engine) as connection:
            return events.add_checkpoint(
                connection,
                job_id,
                folder=folder,
                step_number=step_number,
                metrics=metrics,
                weight_version=weight_version,
            )

    def checkpoints(self, job_id: str, *, after: str | None, limit: int) -> CheckpointPage:
        """Return a page of a job's checkpoints, the last step first, and whether there are more.

        Raises:
            NotFound: If there is no such job, or no such checkpoint of it.
        """
        with reading(self._engine) as connection:
            _sequence(connection, job_id)
            return events.list_checkpoints(connection, job_id, after=after, limit=limit)

    def save_fine_tuned(
        self,
        *,
        name: str,
        job_id: str,
        base: str,
        kind: Literal["full", "lora"],
        folder: str,
        weight_version: str,
    ) -> FineTuned:
        """Keep a policy that a job made, in place of an earlier one of its name."""
        with writing(self._engine) as connection:
            return fine_tuned.save(
                connection,
                name=name,
                job_id=job_id,
                base=base,
                kind=kind,
                folder=folder,
                weight_version=weight_version,
            )

    def fine_tuned(self) -> Policies:
        """Return all policies that jobs made, the oldest first."""
        with reading(self._engine) as connection:
            return fine_tuned.list_all(connection)

    def get_fine_tuned(self, name: str) -> FineTuned:
        """Return a policy that a job made.

        Raises:
            NotFound: If there is none of this name.
        """
        with reading(self._engine) as connection:
            return fine_tuned.get(connection, name)

    def owner_of(self, name: str) -> str | None:
        """Return the job that makes or has made a policy of a name, or will begin from it now."""
        with reading(self._engine) as connection:
            return fine_tuned.owner_of(connection, name)

    def delete_fine_tuned(self, name: str) -> None:
        """Forget a policy that a job made; its folder stays.

        Raises:
            NotFound: If there is none of this name.
            InvalidRequest: If a job that has not ended began with it.
        """
        with writing(self._engine) as connection:
            fine_tuned.remove(connection, name)


def _found(connection: Connection, job_id: str, *, locks: bool = False) -> JobRecord:
    check_id(job_id, prefix="ftjob", what="job")
    query = select(jobs).where(jobs.c.id == job_id)
    row = connection.execute(query.with_for_update() if locks else query).one_or_none()
    if row is None:
        raise missing(job_id, what="job")
    return job_record(row)


def _sequence(connection: Connection, job_id: str) -> int:
    check_id(job_id, prefix="ftjob", what="job")
    query = select(jobs.c.sequence).where(jobs.c.id == job_id)
    sequence = connection.execute(query).scalar_one_or_none()
    if sequence is None:
        raise missing(job_id, what="job")
    return sequence
