"""Fine-tuning jobs of a server: the desk that takes them, the runner, and what they leave."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Mapping
from contextlib import suppress

from steerward.config import ServeConfig
from steerward.engine.served import ServedModel
from steerward.jobs.align.leftovers import remove_leftovers
from steerward.jobs.database import open_database
from steerward.jobs.desk import JobDesk
from steerward.jobs.files import FileStore
from steerward.jobs.records import FineTuned
from steerward.jobs.rows import num_margins
from steerward.jobs.rsf.loop import PATIENCE_S
from steerward.jobs.rsf.workspace import remove_folder
from steerward.jobs.runner import JobRunner
from steerward.jobs.store import JobStore
from steerward.jobs.threads import in_thread
from steerward.policy.generation import Policy
from steerward.protocol.errors import SteerwardError
from steerward.protocol.fine_tuning import JobRequest
from steerward.server.fine_tuned import FineTunedModels
from steerward.server.job_models import JobModels
from steerward.server.job_work import JobWork

logger = logging.getLogger(__name__)

# Seconds after which a server looks for what others have made, deleted or cancelled.
_LOOK_S = 5.0


def open_jobs(
    config: ServeConfig, policies: Mapping[str, Policy], engines: Mapping[str, ServedModel]
) -> ServerJobs:
    """Return the jobs of a server, whose state folder and database can be used.

    Raises:
        SteerwardError: If they cannot.
    """
    try:
        return ServerJobs(config, policies, engines)
    except OSError as error:
        raise SteerwardError(
            f"the state folder {config.state_folder} cannot be used ({error.strerror}); give "
            "another with --state-dir, or start with --no-jobs"
        ) from error


class ServerJobs:
    """Jobs of this server: the desk that takes them, and the runner that does them.

    Args:
        config: Of the server.
        policies: By name, those that jobs can fine-tune among them.
        engines: Reward models by name.
        patience_s: Seconds that a job waits for a model that is away, before it is paused.

    Raises:
        SteerwardError: If the database cannot be used.
        OSError: If the state folder cannot be written.
    """

    def __init__(
        self,
        config: ServeConfig,
        policies: Mapping[str, Policy],
        engines: Mapping[str, ServedModel],
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._folder = config.state_folder
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        url = config.database_url
        self._database = engine = open_database(
            url.get_secret_value() if url else f"sqlite:///{self._folder / 'steerward.sqlite'}"
        )
        self._store = JobStore(engine)
        self._files = FileStore(
            engine,
            self._folder / "files",
            max_bytes=config.max_file_bytes,
            max_rows=config.max_file_rows,
        )
        self._models = JobModels(policies, engines, self._store)
        self._fine_tuned = FineTunedModels(self._store, self._models.policies)
        work = JobWork(
            config,
            models=self._models,
            store=self._store,
            files=self._files,
            fine_tuned=self._fine_tuned,
            patience_s=patience_s,
        )
        self._is_changed = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._runner = JobRunner(
            self._store,
            owner=f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}",
            models=self._models.trainable,
            work=work.run,
            lease_s=config.job_lease_s,
            on_end=self._is_changed.set,
        )
        self.desk = JobDesk(
            self._store,
            self._files,
            check=self._check,
            on_change=self._on_change,
            on_delete=self._delete,
        )

    async def start(self) -> None:
        """Take jobs as soon as their policies are ready; what earlier ones made loads meanwhile."""
        self._is_changed.set()
        self._looking = asyncio.create_task(self._keep_up_to_date())
        self._runner.start()

    async def close(self) -> None:
        """Stop; a job at hand goes on when a server is started again."""
        self._fine_tuned.stop()
        await self._runner.close()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        await asyncio.to_thread(self.desk.close)
        self._database.dispose()

    async def owns(self, name: str) -> bool:
        """Return whether a model's name is a job's, so that nobody else may exchange its weights.

        Raises:
            NotReady: If the database cannot be used now.
        """
        return await self.desk.owns(name)

    def _check(self, request: JobRequest) -> None:
        """Refuse a job that could not run, by its settings and what its rows bring."""
        margins = 0
        if request.method.type == "modpo":
            margins = num_margins(self._files.path(request.training_file))
        self._models.check(request, num_margins=margins)

    def _on_change(self) -> None:
        self._runner.wake()
        self._is_changed.set()

    async def _keep_up_to_date(self) -> None:
        """Serve what jobs make, and no longer what they do not."""
        while True:
            # Not wait_for, which may lose a cancellation.
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._is_changed.wait()
            is_changed = self._is_changed.is_set()
            self._is_changed.clear()
            try:
                await in_thread(self._fine_tuned.bring_up_to_date)
                if is_changed:
                    await in_thread(remove_leftovers, self._folder / "jobs", self._store)
            # The next look may find the database back.
            except Exception as error:
                logger.error("what jobs have made and left is not known now", exc_info=error)

    async def _delete(self, made: FineTuned) -> None:
        """Serve a fine-tuned model no longer, and remove its weights."""
        folder = await asyncio.to_thread(self._fine_tuned.forget, made)
        await asyncio.to_thread(remove_folder, folder)
