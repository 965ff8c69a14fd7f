"""Fine-tuning jobs of a server: the desk that takes them, the runner, and what they leave."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from steerward.config import JobsConfig
from steerward.engine.served import ServedModel
from steerward.jobs.attempts import counted_attempt
from steerward.jobs.custody import sole_use
from steerward.jobs.database import open_database
from steerward.jobs.desk import JobDesk
from steerward.jobs.disk import write_whole
from steerward.jobs.files import FileStore
from steerward.jobs.fine_tuned import fine_tuned_name
from steerward.jobs.records import FineTuned, JobRecord
from steerward.jobs.rsf.export import result_rows
from steerward.jobs.rsf.loop import PATIENCE_S, LoopInput, LoopPorts, Outcome, RsfLoop
from steerward.jobs.rsf.observer import Observer
from steerward.jobs.rsf.origin import Origin, check_origin
from steerward.jobs.rsf.samples import read_samples
from steerward.jobs.rsf.workspace import Workspace, remove_folder
from steerward.jobs.runner import JobOutcome, JobRunner
from steerward.jobs.store import JobStore
from steerward.jobs.threads import in_thread
from steerward.jobs.trainer import ProcessTrainer
from steerward.policy.generation import Policy
from steerward.protocol.errors import SteerwardError
from steerward.protocol.files import FileObject
from steerward.server.fine_tuned import FineTunedModels
from steerward.server.job_models import JobModels
from steerward.server.job_ports import ServedPolicy, ServedRewards

logger = logging.getLogger(__name__)

# Seconds after which a server looks for what others have made, deleted or cancelled.
_LOOK_S = 5.0
_PAGE = 100


def open_jobs(
    config: JobsConfig, policies: Mapping[str, Policy], engines: Mapping[str, ServedModel]
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
        config: JobsConfig,
        policies: Mapping[str, Policy],
        engines: Mapping[str, ServedModel],
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._config = config
        self._patience_s = patience_s
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
        self._is_changed = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._runner = JobRunner(
            self._store,
            owner=f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(4)}",
            models=self._models.trainable,
            work=self._work,
            lease_s=config.job_lease_s,
            on_end=self._is_changed.set,
        )
        self.desk = JobDesk(
            self._store,
            self._files,
            check=self._models.check,
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
            self._is_changed.clear()
            try:
                await in_thread(self._fine_tuned.bring_up_to_date)
            # The next look may find the database back.
            except Exception as error:
                logger.error("what jobs have made is not known now", exc_info=error)

    async def _delete(self, made: FineTuned) -> None:
        """Serve a fine-tuned model no longer, and remove its weights."""
        folder = await asyncio.to_thread(self._fine_tuned.forget, made)
        await asyncio.to_thread(remove_folder, folder)

    async def _work(self, record: JobRecord, observer: Observer) -> JobOutcome:
        """Do a job."""
        folder = self._folder / "jobs" / record.id
        folder.mkdir(parents=True, exist_ok=True)

        def tell() -> None:
            observer.event(
                "the job waits for another server, or an earlier process, that still has its folder"
            )

        async with sole_use(folder, on_wait=tell) as lock:
            with counted_attempt(folder):
                return await self._run_loop(record, observer, folder, lock)

    async def _run_loop(
        self, record: JobRecord, observer: Observer, folder: Path, lock: int
    ) -> JobOutcome:
        settings = record.settings
        policy, variant = self._models.policy(record.model)
        rewards = ServedRewards(self._models.engine(settings.reward_model))
        origin = Origin(
            policy=record.model,
            policy_weight_version=policy.card(variant).weight_version,
            reward_model=rewards.name,
            reward_weight_version=rewards.weight_version,
        )
        await in_thread(check_origin, folder, origin)
        given = await in_thread(self._input, record, folder)
        name = fine_tuned_name(policy.name, record.id, record.suffix)
        served = ServedPolicy(policy, name=name, start=variant)
        ports = LoopPorts(
            generator=served,
            reward_model=rewards,
            trainer=ProcessTrainer(
                settings.training,
                accelerate_config=self._config.accelerate_config,
                # It may outlive a server that is killed, by a moment.
                keeps_open=[lock],
            ),
            publisher=served,
        )
        await in_thread(self._fine_tuned.begin, name, record.id)
        outcome = await RsfLoop(given, ports, observer, patience_s=self._patience_s).run()
        return await in_thread(self._leave, record, policy.name, name, outcome)

    def _input(self, record: JobRecord, folder: Path) -> LoopInput:
        settings = record.settings
        files = [record.training_file, record.validation_file, settings.sft_file]
        for file in files:
            if file is not None:
                self._files.verify(file)
        training, validation, sft = (None if f is None else self._files.path(f) for f in files)
        assert training is not None
        return LoopInput(
            job_id=record.id,
            settings=settings,
            seed=record.seed,
            prompts=training,
            validation_prompts=validation,
            sft=sft,
            base=self._models.start_of(record.model, settings),
            folder=folder,
        )

    def _leave(self, record: JobRecord, base: str, name: str, outcome: Outcome) -> JobOutcome:
        """Keep what a job made: the policy under its name, and the file of all samples."""
        result = self._result(record) or self._write_result(record)
        self._store.save_fine_tuned(
            name=name,
            job_id=record.id,
            base=base,
            kind=record.settings.training.method,
            folder=str(outcome.folder),
            weight_version=outcome.weight_version,
        )
        Workspace(self._folder / "jobs" / record.id).prune(chosen=outcome.iteration)
        return JobOutcome(name, [result.id], outcome.trained_tokens)

    def _result(self, record: JobRecord) -> FileObject | None:
        """Return the file of all samples, if a run that was killed at its very end has left it."""
        after: str | None = None
        while True:
            found, has_more = self._files.list(
                purpose="fine-tune-results", after=after, limit=_PAGE
            )
            for file in found:
                if file.filename == _result_name(record):
                    return file
            # Newest first: what is older than the job is of others.
            if not has_more or found[-1].created_at < record.created_at:
                return None
            after = found[-1].id

    def _write_result(self, record: JobRecord) -> FileObject:
        workspace = Workspace(self._folder / "jobs" / record.id)
        rows = 0

        def write(path: Path) -> None:
            nonlocal rows
            with path.open("w", encoding="utf-8") as file:
                for iteration in range(1, record.settings.iterations + 1):
                    samples = workspace.iteration(iteration).samples
                    for row in result_rows(read_samples(samples)) if samples.exists() else ():
                        file.write(json.dumps(row, ensure_ascii=False) + "\n")
                        rows += 1

        write_whole(workspace.results, write)
        return self._files.add_result(workspace.results, filename=_result_name(record), rows=rows)


def _result_name(record: JobRecord) -> str:
    return f"{record.id}-samples.jsonl"
