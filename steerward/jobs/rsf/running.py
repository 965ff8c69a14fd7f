"""What all steps of one run of the loop share: what it was given, whom it asks, where it keeps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from steerward.jobs.rows import read_prompts
from steerward.jobs.rsf.clock import Clock
from steerward.jobs.rsf.directions import directions_for
from steerward.jobs.rsf.draw import hold_out
from steerward.jobs.rsf.observer import Observer
from steerward.jobs.rsf.patience import Patience
from steerward.jobs.rsf.ports import Generator, Publisher, RewardModel, Trainer, Turns
from steerward.jobs.rsf.sampling import Sampler
from steerward.jobs.rsf.tracker import Tracker
from steerward.jobs.rsf.workspace import IterationFolder, Workspace
from steerward.jobs.threads import in_thread
from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.errors import SteerwardError
from steerward.protocol.fine_tuning import IterationProgress
from steerward.protocol.rsf import RsfSettings

# Of prompts that are left out, so many are told one by one in each step.
_MOST_TOLD = 10


@dataclass(frozen=True, slots=True)
class LoopInput:
    """What a loop runs on."""

    job_id: str
    settings: RsfSettings
    seed: int
    prompts: Path
    """JSON lines, see `steerward.jobs.rows`."""
    validation_prompts: Path | None
    sft: Path | None
    base: Path
    """Checkpoint folder of the policy that it begins with."""
    folder: Path
    """Of the job; what it holds of an earlier run is gone on with."""


@dataclass(frozen=True, slots=True)
class LoopPorts:
    """Whom a loop asks."""

    generator: Generator
    reward_model: RewardModel
    trainer: Trainer
    publisher: Publisher


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prompts of a job."""

    rows: Sequence[Turns]
    """All of the file."""
    training: Sequence[int]
    """Which of them are trained on."""
    held_out: Sequence[Turns]
    """Those to measure on."""
    overlap: int = 0
    """Of these, how many are trained on too: a validation file may hold them."""

    @classmethod
    def read(cls, given: LoopInput) -> Prompts:
        """Return the prompts of a job; the same ones each time.

        Raises:
            DatasetRefused: If a file is not what it was when it was uploaded.
        """
        wanted = given.settings.evaluation_prompts
        rows: list[Turns] = list(read_prompts(given.prompts))
        if given.validation_prompts is not None:
            others: list[Turns] = list(read_prompts(given.validation_prompts)[:wanted])
            known = {_text(row) for row in rows}
            overlap = sum(_text(other) in known for other in others)
            return cls(rows, list(range(len(rows))), others, overlap)
        training, held_out = hold_out([_text(row) for row in rows], wanted, given.seed)
        return cls(rows, training, [rows[place] for place in held_out])


def _text(turns: Turns) -> str:
    """Return a conversation as a text that only equal ones have."""
    return json.dumps([[turn["role"], turn["content"]] for turn in turns])


@dataclass(frozen=True, slots=True)
class LoopRun:
    """One run of a loop."""

    given: LoopInput
    ports: LoopPorts
    observer: Observer
    patience: Patience
    workspace: Workspace
    tracker: Tracker

    @property
    def settings(self) -> RsfSettings:
        """Of the job."""
        return self.given.settings

    def directions(self, iteration: int) -> list[PreferenceDirection]:
        """Return the directions that an iteration trains on."""
        rule = self.ports.generator.rule
        return directions_for(self.settings, rule, iteration=iteration, seed=self.given.seed)

    @property
    def objectives(self) -> list[str]:
        """What directions are made of, in the reward model's names."""
        rule = self.ports.generator.rule
        return [rule.reward_names.get(name, name) for name in rule.objectives]

    def sampler(self, clock: Clock) -> Sampler:
        """Return what draws and scores; it tells the observer of prompts that are left out."""
        num_told = 0

        def left_out(row: int, error: SteerwardError) -> None:
            nonlocal num_told
            num_told += 1
            if num_told <= _MOST_TOLD:
                more = "; more are not told one by one" if num_told == _MOST_TOLD else ""
                self.observer.event(
                    f"prompt {row} is left out: {error.message}{more}", level="warn"
                )

        return Sampler(
            self.ports.generator,
            self.ports.reward_model,
            patience=self.patience,
            clock=clock,
            concurrency=self.settings.concurrency,
            on_prompt=self.tracker.sampled,
            on_left_out=left_out,
        )

    async def save(self, folder: IterationFolder, progress: IterationProgress) -> None:
        """Keep what is known of an iteration, on the disk first."""
        await in_thread(folder.save, progress)
        self.tracker.keep(progress)


def longer(progress: IterationProgress, **seconds: float) -> IterationProgress:
    """Return progress with the time of a step added to what earlier runs of it took."""
    known = progress.seconds
    added = {name: known.get(name, 0.0) + value for name, value in seconds.items()}
    return progress.model_copy(update={"seconds": {**known, **added}})
