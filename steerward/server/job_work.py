"""What is done for a job of this server, by method, from its files to what it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from steerward.config import ServeConfig
from steerward.jobs.align.checks import asks_for_rewards
from steerward.jobs.align.results import write_results
from steerward.jobs.align.running import AlignFolder, AlignInput, AlignmentRun, AlignPorts
from steerward.jobs.attempts import counted_attempt
from steerward.jobs.custody import sole_use
from steerward.jobs.disk import write_whole
from steerward.jobs.files import FileStore
from steerward.jobs.fine_tuned import fine_tuned_name
from steerward.jobs.records import JobRecord
from steerward.jobs.rsf.export import result_rows
from steerward.jobs.rsf.loop import LoopInput, LoopPorts, RsfLoop
from steerward.jobs.rsf.observer import Observer
from steerward.jobs.rsf.origin import Origin, check_origin
from steerward.jobs.rsf.samples import read_samples
from steerward.jobs.rsf.workspace import Workspace
from steerward.jobs.runner import JobOutcome
from steerward.jobs.store import JobStore
from steerward.jobs.threads import in_thread
from steerward.jobs.trainer import ProcessTrainer
from steerward.protocol.files import FileContents, FileObject
from steerward.protocol.rsf import RsfSettings
from steerward.server.fine_tuned import FineTunedModels
from steerward.server.job_models import JobModels, rule_of, trained_kind
from steerward.server.job_ports import ServedPolicy, ServedRewards

_PAGE = 100


@dataclass(frozen=True, slots=True)
class _Task:
    """A job with whom it asks and where it works."""

    record: JobRecord
    observer: Observer
    folder: Path
    lock: int
    """Descriptor that holds the folder. A process that inherits it may outlive a server that is
    killed, by a moment."""
    policy: ServedPolicy
    rewards: ServedRewards
    origin: Origin
    """What it began with."""


@dataclass(frozen=True, slots=True)
class _Made:
    """What the work of a method has come to."""

    folder: Path
    """Of the policy, or of the adapter."""
    weight_version: str
    trained_tokens: int
    holds: FileContents
    """What the file of results does."""
    write_results: Callable[[Path], int]
    """Writes that file, and returns its rows."""
    tidy: Callable[[], None] = lambda: None
    """Removes what nobody needs once the policy is kept."""


class JobWork:
    """Does jobs, one at a time.

    Args:
        config: Of the server.
        models: That jobs can use.
        store: Of the jobs.
        files: Of the jobs.
        fine_tuned: Is told of what is being made.
        patience_s: Seconds that a job waits for a model that is away, before it is paused.
    """

    def __init__(
        self,
        config: ServeConfig,
        *,
        models: JobModels,
        store: JobStore,
        files: FileStore,
        fine_tuned: FineTunedModels,
        patience_s: float,
    ) -> None:
        self._config = config
        self._models = models
        self._store = store
        self._files = files
        self._fine_tuned = fine_tuned
        self._patience_s = patience_s

    async def run(self, record: JobRecord, observer: Observer) -> JobOutcome:
        """Do a job, from wherever an earlier run was stopped.

        Raises:
            SteerwardError: Why it cannot go on.
            OSError: If its folder cannot be used.
        """
        folder = self._config.state_folder / "jobs" / record.id
        folder.mkdir(parents=True, exist_ok=True)

        def tell() -> None:
            observer.event(
                "the job waits for another server, or an earlier process, that still has its folder"
            )

        async with sole_use(folder, on_wait=tell) as lock:
            with counted_attempt(folder):
                return await self._run(record, observer, folder, lock)

    async def _run(
        self, record: JobRecord, observer: Observer, folder: Path, lock: int
    ) -> JobOutcome:
        policy, variant = self._models.policy(record.model)
        engine = self._models.engine(record.settings.reward_model, method=record.method)
        rewards = ServedRewards(engine)
        if record.method == "rsf":
            rule_of(policy)
        origin = Origin(record.model, policy.card(variant).weight_version)
        if asks_for_rewards(record.settings):
            origin = replace(
                origin, reward_model=rewards.name, reward_weight_version=rewards.weight_version
            )
        await in_thread(check_origin, folder, origin)
        name = fine_tuned_name(policy.name, record)
        served = ServedPolicy(policy, name=name, start=variant)
        await in_thread(self._fine_tuned.begin, name, record.id)
        work = self._sample_and_select if record.method == "rsf" else self._align
        made = await work(_Task(record, observer, folder, lock, served, rewards, origin))
        return await in_thread(self._leave, record, policy.name, name, made)

    async def _sample_and_select(self, task: _Task) -> _Made:
        settings = task.record.settings
        assert isinstance(settings, RsfSettings)
        training, validation, sft = await in_thread(
            self._paths, task.record.training_file, task.record.validation_file, settings.sft_file
        )
        assert training is not None
        given = LoopInput(
            job_id=task.record.id,
            settings=settings,
            seed=task.record.seed,
            prompts=training,
            validation_prompts=validation,
            sft=sft,
            base=self._models.start_of(task.record.model, kind=settings.training.method),
            folder=task.folder,
        )
        ports = LoopPorts(
            generator=task.policy,
            reward_model=task.rewards,
            trainer=ProcessTrainer(
                settings.training,
                accelerate_config=self._config.accelerate_config,
                keeps_open=[task.lock],
            ),
            publisher=task.policy,
        )
        outcome = await RsfLoop(given, ports, task.observer, patience_s=self._patience_s).run()
        workspace = Workspace(task.folder)
        return _Made(
            outcome.folder,
            outcome.weight_version,
            outcome.trained_tokens,
            "samples",
            lambda path: _write_samples(workspace, settings.iterations, path),
            lambda: workspace.prune(chosen=outcome.iteration),
        )

    async def _align(self, task: _Task) -> _Made:
        record, settings = task.record, task.record.settings
        assert not isinstance(settings, RsfSettings)
        assert record.method != "rsf"
        rows, validation = await in_thread(
            self._paths, record.training_file, record.validation_file
        )
        assert rows is not None
        run = AlignmentRun(
            AlignInput(
                job_id=record.id,
                method=record.method,
                settings=settings,
                rows=rows,
                validation_rows=validation,
                base=self._models.start_of(record.model, kind=settings.method),
                reward_weight_version=task.rewards.weight_version,
                most_candidates=self._config.max_candidates,
                folder=task.folder,
            ),
            AlignPorts(reward_model=task.rewards, publisher=task.policy),
            task.observer,
            patience_s=self._patience_s,
            accelerate_config=self._config.accelerate_config,
            keeps_open=[task.lock],
        )
        aligned = await run.run()
        return _Made(
            aligned.folder,
            aligned.weight_version,
            aligned.trained_tokens,
            "metrics",
            lambda path: write_results(AlignFolder(task.folder).run, path),
        )

    def _paths(self, *files: str | None) -> list[Path | None]:
        """Return where the files of a job are, which are what was uploaded."""
        for file in files:
            if file is not None:
                self._files.verify(file)
        return [None if file is None else self._files.path(file) for file in files]

    def _leave(self, record: JobRecord, base: str, name: str, made: _Made) -> JobOutcome:
        """Keep what a job made: the policy under its name, and the file of results."""
        filename = f"{record.id}-{made.holds}.jsonl"
        result = self._result(record, filename) or self._add_result(record, filename, made)
        kind: Literal["full", "lora"] = trained_kind(record.settings)
        self._store.save_fine_tuned(
            name=name,
            job_id=record.id,
            base=base,
            kind=kind,
            folder=str(made.folder),
            weight_version=made.weight_version,
        )
        made.tidy()
        return JobOutcome(name, [result.id], made.trained_tokens)

    def _result(self, record: JobRecord, filename: str) -> FileObject | None:
        """Return the file of results, if a run that was killed at its very end has left it."""
        after: str | None = None
        while True:
            found, has_more = self._files.list(
                purpose="fine-tune-results", after=after, limit=_PAGE
            )
            for file in found:
                if file.filename == filename:
                    return file
            # Newest first: what is older than the job is of others.
            if not has_more or found[-1].created_at < record.created_at:
                return None
            after = found[-1].id

    def _add_result(self, record: JobRecord, filename: str, made: _Made) -> FileObject:
        path = Workspace(self._config.state_folder / "jobs" / record.id).results
        rows = 0

        def write(building: Path) -> None:
            nonlocal rows
            rows = made.write_results(building)

        write_whole(path, write)
        return self._files.add_result(path, filename=filename, rows=rows, holds=made.holds)


def _write_samples(workspace: Workspace, iterations: int, path: Path) -> int:
    """Write every sample of a job, and return how many there are."""
    rows = 0
    with path.open("w", encoding="utf-8") as file:
        for iteration in range(1, iterations + 1):
            samples = workspace.iteration(iteration).samples
            for row in result_rows(read_samples(samples)) if samples.exists() else ():
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                rows += 1
    return rows
