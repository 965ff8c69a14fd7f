"""How a job comes to be: its row, and the files that it needs from then on."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select

from steerward.jobs.database import database_time
from steerward.jobs.records import new_id
from steerward.jobs.tables import files, job_metadata, jobs
from steerward.protocol.errors import NotFound, brief
from steerward.protocol.fine_tuning import JobProgress, JobRequest
from steerward.protocol.rsf import RsfSettings


def create(connection: Connection, request: JobRequest, *, seed: int) -> str:
    """Keep a new job, which waits for a server, and return its id.

    Raises:
        NotFound: If one of its files is not there, or is deleted at this moment.
    """
    settings = request.method.settings
    is_rsf = isinstance(settings, RsfSettings)
    sft_file = settings.sft_file if is_rsf else None
    _hold_file(connection, request.training_file, param="training_file")
    _hold_file(connection, request.validation_file, param="validation_file")
    _hold_file(connection, sft_file, param="method.rsf.sft_file")
    job_id = new_id("ftjob")
    connection.execute(
        insert(jobs).values(
            id=job_id,
            model=request.model,
            status="queued",
            request="none",
            created_at=database_time(connection),
            training_file=request.training_file,
            validation_file=request.validation_file,
            sft_file=sft_file,
            result_files=[],
            seed=seed,
            suffix=request.suffix,
            metadata=request.metadata,
            method=request.method.type,
            # The seed of trainers is among their settings: what is told there is what is used.
            settings=settings.model_dump() if is_rsf else {**settings.model_dump(), "seed": seed},
            progress=JobProgress(iterations=settings.iterations if is_rsf else 0).model_dump(),
        )
    )
    for key, value in (request.metadata or {}).items():
        connection.execute(insert(job_metadata).values(job_id=job_id, key=key, value=value))
    return job_id


def _hold_file(connection: Connection, file_id: str | None, *, param: str) -> None:
    """See that a file is there, and let nobody delete it before this transaction ends."""
    if file_id is None:
        return
    query = select(files.c.id).where(files.c.id == file_id, files.c.is_kept.is_(True))
    if connection.execute(query.with_for_update(read=True)).one_or_none() is None:
        raise NotFound(
            f"there is no file {brief(ascii(file_id)[1:-1])!r}; upload it first, by POST /v1/files",
            param=param,
        )
