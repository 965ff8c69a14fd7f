"""Jobs and files for an event loop: what asks the database or the disk runs on threads.

The desk knows what a job must be given and what an answer looks like. It runs no job; whoever does
is told that there is something new.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from steerward.jobs.files import FileStore
from steerward.jobs.followers import Followers
from steerward.jobs.incoming import IncomingFile
from steerward.jobs.records import FineTuned
from steerward.jobs.states import JobAction
from steerward.jobs.store import JobStore
from steerward.protocol.alignment import ON_PREFERENCES
from steerward.protocol.errors import InvalidRequest, NotFound, brief
from steerward.protocol.files import FileContents, FileDeleted, FileList, FileObject, FilePurpose
from steerward.protocol.fine_tuning import (
    FINAL_STATUSES,
    Job,
    JobCheckpointList,
    JobEvent,
    JobEventList,
    JobList,
    JobRequest,
    ModelDeleted,
)
from steerward.protocol.rsf import RsfSettings

ResultT = TypeVar("ResultT")
ParametersT = ParamSpec("ParametersT")

_NUM_THREADS = 4
_EVENTS_OF_A_LOOK = 200
_ROWS: Mapping[FileContents, str] = {
    "prompts": "rows that end with a user turn",
    "conversations": "rows that end with the assistant's turn",
    "preferences": "prompts with a chosen and a rejected response",
    "samples": "what a job sampled",
    "metrics": "what a job logged and measured",
}


@dataclass(frozen=True, slots=True)
class JobNews:
    """What a job has come to since somebody looked last."""

    job: Job
    events: list[JobEvent]
    """Oldest first."""

    @property
    def is_quiet_end(self) -> bool:
        """Whether the job has ended and there was nothing new."""
        return self.job.status in FINAL_STATUSES and not self.events


class JobDesk:
    """Takes orders for jobs and files, and tells of them.

    Its methods belong on one event loop.

    Args:
        store: Of the jobs.
        files: Of the uploaded files.
        check: Called in a thread with each new job's request; raises what is wrong with it.
        on_change: Called on the event loop when a job was made, or asked to change its state.
        on_delete: Awaited with a fine-tuned model when its record is gone: ends its serving and
            deletes its folder.
    """

    def __init__(
        self,
        store: JobStore,
        files: FileStore,
        *,
        check: Callable[[JobRequest], None],
        on_change: Callable[[], None],
        on_delete: Callable[[FineTuned], Awaitable[None]],
    ) -> None:
        self._store = store
        self._files = files
        self._check = check
        self._on_change = on_change
        self._on_delete = on_delete
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="job-desk")
        self.followers = Followers()

    async def create(self, request: JobRequest) -> Job:
        """Queue a job.

        Raises:
            NotFound: If there is no file of an id.
            InvalidRequest: If a file holds something else, or the check finds something wrong.
        """
        settings = request.method.settings
        is_of_pairs = request.method.type in ON_PREFERENCES
        needed: FileContents = "preferences" if is_of_pairs else "prompts"
        await self._require(request.training_file, needed, param="training_file")
        await self._require(request.validation_file, needed, param="validation_file")
        if isinstance(settings, RsfSettings):
            await self._require(settings.sft_file, "conversations", param="method.rsf.sft_file")
        await self._run(self._check, request)
        record = await self._run(self._store.create, request, seed=request.used_seed)
        self._on_change()
        return record.wire()

    async def _require(self, file_id: str | None, needed: FileContents, *, param: str) -> None:
        if file_id is None:
            return
        try:
            file = await self.file(file_id)
        except NotFound as error:
            raise NotFound(error.message, param=param) from None
        if file.holds != needed:
            raise InvalidRequest(
                f"file {file.id} ({brief(file.filename)}) holds {file.holds}, {_ROWS[file.holds]}; "
                f"{param} needs {needed}, {_ROWS[needed]}",
                param=param,
            )

    async def job(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            NotFound: If there is none.
        """
        return (await self._run(self._store.get, job_id)).wire()

    async def jobs(
        self, *, after: str | None, limit: int, metadata: Mapping[str, str] | None = None
    ) -> JobList:
        """Return jobs, newest first.

        Args:
            after: Id of the last job of the page before.
            limit: Most jobs.
            metadata: Pairs that a job must have.

        Raises:
            NotFound: If there is no job `after`.
        """
        found, has_more = await self._run(
            self._store.list, after=after, limit=limit, metadata=metadata or None
        )
        return JobList(data=[record.wire() for record in found], has_more=has_more)

    async def ask(self, job_id: str, action: JobAction) -> Job:
        """Ask for a job to be paused, resumed or cancelled, and return it.

        Raises:
            NotFound: If there is none.
            InvalidRequest: If its status does not allow that.
        """
        record = await self._run(self._store.request, job_id, action)
        self._on_change()
        return record.wire()

    async def events(self, job_id: str, *, after: str | None, limit: int) -> JobEventList:
        """Return events of a job, newest first.

        Raises:
            NotFound: If there is no such job, or no event `after`.
        """
        found, has_more = await self._run(self._store.events, job_id, after=after, limit=limit)
        return JobEventList(data=found, has_more=has_more)

    async def news(self, job_id: str, *, after: str | None) -> JobNews:
        """Return a job and its next few events, oldest first.

        Args:
            job_id: Of the job.
            after: Id of the last event that is known.

        Raises:
            NotFound: If there is no such job, or no event `after`.
        """

        def look() -> JobNews:
            # In this order: a job that has ended then comes with all events from before its end.
            job = self._store.get(job_id).wire()
            found, _ = self._store.events(
                job_id, after=after, limit=_EVENTS_OF_A_LOOK, newest_first=False
            )
            return JobNews(job, found)

        return await self._run(look)

    async def checkpoints(self, job_id: str, *, after: str | None, limit: int) -> JobCheckpointList:
        """Return checkpoints of a job, newest first.

        Raises:
            NotFound: If there is no such job, or no checkpoint `after`.
        """
        found, has_more = await self._run(self._store.checkpoints, job_id, after=after, limit=limit)
        return JobCheckpointList(
            data=found,
            has_more=has_more,
            first_id=found[0].id if found else None,
            last_id=found[-1].id if found else None,
        )

    async def delete_model(self, name: str) -> ModelDeleted:
        """Forget a fine-tuned model.

        Raises:
            NotFound: If no job has made one of that name.
            InvalidRequest: If a job that has not ended began with it.
        """
        model = await self._run(self._store.get_fine_tuned, name)
        await self._run(self._store.delete_fine_tuned, name)
        await self._on_delete(model)
        return ModelDeleted(id=name)

    async def owns(self, name: str) -> bool:
        """Return whether a model's name is a job's, so that nobody else may exchange its weights.

        Those are the policies of jobs that run or wait, and what jobs make or have made.
        """
        return await self._run(self._store.owner_of, name) is not None

    async def file(self, file_id: str) -> FileObject:
        """Return what is known of a file.

        Raises:
            NotFound: If there is none.
        """
        return await self._run(self._files.get, file_id)

    async def files(
        self,
        *,
        purpose: FilePurpose | None,
        after: str | None,
        limit: int,
        newest_first: bool = True,
    ) -> FileList:
        """Return files.

        Raises:
            NotFound: If there is no file `after`.
        """
        found, has_more = await self._run(
            self._files.list, purpose=purpose, after=after, limit=limit, newest_first=newest_first
        )
        return FileList(
            data=found,
            has_more=has_more,
            first_id=found[0].id if found else None,
            last_id=found[-1].id if found else None,
        )

    async def content(self, file_id: str) -> tuple[FileObject, Path]:
        """Return a file and where its rows are.

        Raises:
            NotFound: If there is none.
        """
        return await self.file(file_id), await self._run(self._files.path, file_id)

    async def delete_file(self, file_id: str) -> FileDeleted:
        """Delete a file.

        Raises:
            NotFound: If there is none.
            InvalidRequest: If a job still needs it.
        """
        await self._run(self._files.delete, file_id)
        return FileDeleted(id=file_id)

    @asynccontextmanager
    async def upload(self, filename: str) -> AsyncIterator[IncomingFile]:
        """Take a file for fine-tuning piece by piece; one that is not finished leaves nothing."""
        upload = await self._run(self._files.upload, filename, "fine-tune")
        incoming = IncomingFile(upload, self._threads)
        try:
            yield incoming
        finally:
            await incoming.aclose()

    def begin_drain(self) -> None:
        """Let those who follow a job go; on the event loop."""
        self.followers.begin_drain()

    def close(self) -> None:
        """End the threads, when what they do is done; the stores stay open."""
        self._threads.shutdown()

    async def _run(
        self,
        call: Callable[ParametersT, ResultT],
        *args: ParametersT.args,
        **kwargs: ParametersT.kwargs,
    ) -> ResultT:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: call(*args, **kwargs))
