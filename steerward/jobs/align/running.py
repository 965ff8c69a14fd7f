"""One run of a job of one of the optimisers: its process, and the rewards that it asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from steerward.jobs.align.answering import Answering
from steerward.jobs.align.results import read_history
from steerward.jobs.align.rows import write_rows
from steerward.jobs.align.tracking import Tracking
from steerward.jobs.process import TrainingProcess
from steerward.jobs.rsf.observer import Observer
from steerward.jobs.rsf.patience import Patience
from steerward.jobs.rsf.ports import Publisher, RewardModel
from steerward.jobs.rsf.workspace import Workspace, remove_folder
from steerward.jobs.threads import in_thread
from steerward.protocol.align_work import AlignDone, AlignJob
from steerward.protocol.alignment import ON_PREFERENCES, AlignMethod
from steerward.protocol.errors import NotReady, TrainingFailed
from steerward.protocol.fine_tuning import AlignSettings, IterationProgress

_MODULE = "steerward.training.align.process"
# A process that is killed goes on from its last checkpoint when it is started again. So many that
# were killed one after the other before another step was made end the run.
_MOST_KILLED = 3


@dataclass(frozen=True, slots=True)
class AlignInput:
    """What a run is given."""

    job_id: str
    method: AlignMethod
    settings: AlignSettings
    rows: Path
    """JSON lines, see `steerward.jobs.rows`."""
    validation_rows: Path | None
    base: Path
    """Checkpoint folder of the policy that it begins with."""
    reward_weight_version: str
    """Of the reward model that it begins with."""
    most_candidates: int
    """Most completions of one prompt that the reward model takes at once."""
    folder: Path
    """Of the job; what it holds of an earlier run is gone on with."""


@dataclass(frozen=True, slots=True)
class AlignPorts:
    """Whom a run asks."""

    reward_model: RewardModel
    publisher: Publisher


@dataclass(frozen=True, slots=True)
class AlignFolder:
    """Files of a job."""

    path: Path

    @property
    def rows(self) -> Path:
        """What the process reads."""
        return self.path / "rows"

    @property
    def work(self) -> Path:
        """What the process is given, and its log."""
        return self.path / "training"

    @property
    def run(self) -> Path:
        """What the optimiser logs, measures and makes."""
        return self.path / "run"

    @property
    def checkpoints(self) -> Path:
        """What a killed process goes on from."""
        return self.run / "checkpoints"

    @property
    def built_rows(self) -> Path:
        """What MAPL builds of the rows."""
        return self.run / "rows"

    @property
    def policy(self) -> Path:
        """The policy, or its adapter, at the end."""
        return self.run / "policy"


@dataclass(frozen=True, slots=True)
class Aligned:
    """What a run came to."""

    folder: Path
    weight_version: str
    trained_tokens: int


class AlignmentRun:
    """Trains in a process of its own, answers what it asks, and serves what comes of it.

    Args:
        given: What to run on.
        ports: Whom to ask.
        observer: Is told how it goes.
        patience_s: Seconds that it waits for a reward model that is away.
        accelerate_config: See `TrainingProcess`.
        environment: The same.
        keeps_open: The same.
        module: That is run.
    """

    def __init__(
        self,
        given: AlignInput,
        ports: AlignPorts,
        observer: Observer,
        *,
        patience_s: float,
        accelerate_config: Path | None = None,
        environment: Mapping[str, str] | None = None,
        keeps_open: Sequence[int] = (),
        module: str = _MODULE,
    ) -> None:
        self._given = given
        self._ports = ports
        self._observer = observer
        self._patience_s = patience_s
        self._folder = AlignFolder(given.folder)
        self._process = TrainingProcess(
            module,
            accelerate_config=accelerate_config,
            environment=environment,
            keeps_open=keeps_open,
        )

    async def run(self) -> Aligned:
        """Run to the end, from wherever an earlier run was stopped.

        Nobody else may work in the folder meanwhile. If cancelled, the process is killed before
        this returns.

        Raises:
            SteerwardError: Why it cannot go on; what is done stays done.
            OSError: If the folder cannot be written.
        """
        rows, validation = await in_thread(self._prepare)
        settings = self._given.settings
        history = await in_thread(
            read_history, self._folder.run, evaluation_steps=settings.evaluation_steps
        )
        tracking = Tracking(settings, self._observer, history)
        done = await self._trained(tracking, rows=rows, validation=validation)
        version = await Patience(self._patience_s).call(
            lambda: self._ports.publisher.publish(self._folder.policy, settings.method)
        )
        self._observer.published(
            IterationProgress(iteration=done.steps, rewards=done.rewards),
            self._folder.policy,
            version,
        )
        for folder in (self._folder.rows, self._folder.built_rows):
            await in_thread(remove_folder, folder)
        tracking.end(done.trained_tokens)
        return Aligned(self._folder.policy, version, done.trained_tokens)

    def _prepare(self) -> tuple[Path, Path | None]:
        """Write the rows that the process reads, and return where they are."""
        Workspace(self._given.folder).tidy()
        kind = "preferences" if self._given.method in ON_PREFERENCES else "prompts"
        rows = self._folder.rows / "training.jsonl"
        write_rows(self._given.rows, rows, kind=kind)
        if self._given.validation_rows is None:
            return rows, None
        validation = self._folder.rows / "validation.jsonl"
        write_rows(self._given.validation_rows, validation, kind=kind)
        return rows, validation

    async def _trained(
        self, tracking: Tracking, *, rows: Path, validation: Path | None
    ) -> AlignDone:
        """Train, and go on where something outside has killed the process.

        Raises:
            NotReady: If it is killed again and again before another step.
        """
        killed = 0
        while True:
            reached = tracking.furthest
            try:
                await self._train(tracking, rows=rows, validation=validation)
                break
            except TrainingFailed as error:
                if not error.was_killed:
                    raise
                killed = 1 if tracking.furthest > reached else killed + 1
                if killed >= _MOST_KILLED:
                    raise NotReady(
                        f"the process was killed {killed} times before another step was made, the "
                        f"last time: {error.message}; nothing that was done is lost"
                    ) from error
                self._observer.event(f"{error.message}; it is started again", level="warn")
        if tracking.done is None:
            raise TrainingFailed(
                f"the process ended without a report; its log is in {self._folder.work}"
            )
        return tracking.done

    async def _train(self, tracking: Tracking, *, rows: Path, validation: Path | None) -> None:
        answering = Answering(
            self._ports.reward_model,
            self._observer,
            Patience(self._patience_s),
            weight_version=self._given.reward_weight_version,
            most_candidates=self._given.most_candidates,
        )
        tracking.begin()
        async with answering.served() as socket:
            job = AlignJob(
                method=self._given.method,
                settings=self._given.settings.model_dump(mode="json"),
                base=self._given.base.resolve(),
                rows=rows.resolve(),
                validation=None if validation is None else validation.resolve(),
                out=self._folder.run.resolve(),
                name=self._given.job_id,
                rewards=socket,
                reward_weight_version=self._given.reward_weight_version,
                most_candidates=self._given.most_candidates,
            )
            try:
                async with asyncio.TaskGroup() as both:
                    # Rewards that do not come end the process.
                    watching = both.create_task(answering.wait_until_failed())
                    await self._process.run(job, self._folder.work, tracking.hear)
                    watching.cancel()
            except BaseExceptionGroup as errors:
                raise _first(errors) from None


def _first(error: BaseException) -> BaseException:
    """Return the error of a group that says why; the others came of it or are alike."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
