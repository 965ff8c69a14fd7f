"""A policy, a reward model and a trainer made of arithmetic, for tests of the loop's own logic.

What they give depends on what they are asked and on which weights are served, and on nothing
else. Everything that the loop asks of them, and tells, can be the last thing before its end.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from steerward.jobs.rsf.loop import LoopInput, LoopPorts, RsfLoop
from steerward.jobs.rsf.ports import (
    Completion,
    Generated,
    Sampling,
    Scored,
    TrainingProgress,
    TrainingReport,
    TrainingWork,
    Turns,
)
from steerward.jobs.rsf.workspace import write_whole
from steerward.protocol.conditioning import ConditioningRule
from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.fine_tuning import EventLevel, EventType, IterationProgress, JobProgress
from steerward.protocol.rsf import RsfSettings

RULE = ConditioningRule.model_validate(
    {
        "name": "played",
        "objectives": ["helpfulness", "verbosity"],
        "template": "Maximize helpfulness*{helpfulness} + verbosity*{verbosity}",
        "cone_deg": 45.0,
        "reward_names": {"helpfulness": "help", "verbosity": "length"},
    }
)
WORDS = ["the", "a", "red", "blue", "old", "new", "fox", "dog", "runs", "sleeps", "here", "now"]


class Killed(BaseException):
    """Stands for the end of the process: nobody may handle it."""


@dataclass(slots=True)
class Fuse:
    """Counts what the loop asks and tells, and ends it there, if wanted."""

    at: int | None = None
    count: int = 0

    def burn(self) -> None:
        self.count += 1
        if self.count == self.at:
            raise Killed


def number_of(*key: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:4], "big")


@dataclass(slots=True)
class PlayedPolicy:
    """Draws words, and is its own publisher."""

    fuse: Fuse = field(default_factory=Fuse)
    tells_tokens: bool = True
    before: Callable[[Turns], None] = lambda _: None
    """Called before each drawing; may raise."""
    version: str = "base"
    drawn: int = 0
    """Calls."""
    published: list[str] = field(default_factory=list)

    @property
    def rule(self) -> ConditioningRule:
        self.fuse.burn()
        return RULE

    async def generate(
        self, messages: Turns, *, direction: PreferenceDirection, num: int, sampling: Sampling
    ) -> Generated:
        self.fuse.burn()
        self.before(messages)
        assert set(direction.components) == set(RULE.objectives)
        self.drawn += 1
        await asyncio.sleep(0)
        found: list[Completion] = []
        for sample in range(num):
            key = (self.version, messages[-1]["content"], sampling.seed, sample)
            words = [WORDS[number_of(*key, place) % len(WORDS)] for place in range(4)]
            tokens = len(words) + 1
            found.append(Completion(" ".join(words), tokens if self.tells_tokens else None, True))
        return Generated(found, num * 5, self.version)

    async def publish(self, folder: Path, kind: Literal["full", "lora"]) -> str:
        self.fuse.burn()
        assert kind == "full"
        self.version = json.loads((folder / "report.json").read_text())["version"]
        self.published.append(self.version)
        return self.version


@dataclass(slots=True)
class PlayedRewards:
    """Scores texts by their letters."""

    fuse: Fuse = field(default_factory=Fuse)
    before: Callable[[Sequence[str]], None] = lambda _: None
    version: str = "r1"
    name: str = "played-rewards"
    objectives: Sequence[str] = ("help", "length")

    @property
    def reference(self) -> Mapping[str, tuple[float, float]] | None:
        self.fuse.burn()
        return {"help": (0.5, 0.2), "length": (10.0, 5.0)}

    async def score(self, messages: Turns, completions: Sequence[str]) -> Scored:
        self.fuse.burn()
        self.before(completions)
        await asyncio.sleep(0)
        rewards = [
            {"help": number_of(messages[-1]["content"], text) / 2**32, "length": float(len(text))}
            for text in completions
        ]
        return Scored(rewards, [0.5] * len(completions), self.version)


@dataclass(slots=True)
class PlayedTrainer:
    """Makes a folder whose version depends on all that it was given."""

    fuse: Fuse = field(default_factory=Fuse)
    before: Callable[[TrainingWork], None] = lambda _: None
    trained: int = 0

    async def train(self, work: TrainingWork, on_progress: TrainingProgress) -> TrainingReport:
        report = work.out / "report.json"
        if not report.exists():
            self.fuse.burn()
            self.before(work)
            on_progress(1, 2, 0.7)
            start = "base" if work.start is None else (work.start / "report.json").read_text()
            version = f"{number_of(work.data.read_text(), start, work.seed):08x}"
            work.work.mkdir(exist_ok=True)
            building = work.out.with_name(".policy.building")
            building.mkdir()
            write_whole(
                building / "report.json",
                lambda path: path.write_text(json.dumps({"version": version})),
            )
            self.fuse.burn()
            building.rename(work.out)
            self.trained += 1
            self.fuse.burn()
        return TrainingReport(loss=0.5, kl=0.01, tokens=100, steps=2, seconds=0.25)


@dataclass(slots=True)
class Notes:
    """What the loop told."""

    fuse: Fuse = field(default_factory=Fuse)
    messages: list[tuple[EventLevel, str]] = field(default_factory=list)
    steps: list[tuple[str, int]] = field(default_factory=list)
    last: JobProgress | None = None
    checkpoints: dict[int, tuple[str, float | None]] = field(default_factory=dict)

    def progress(self, progress: JobProgress) -> None:
        self.fuse.burn()
        self.last = progress
        step = (progress.step, progress.iteration)
        if not self.steps or self.steps[-1] != step:
            self.steps.append(step)

    def event(
        self,
        message: str,
        *,
        level: EventLevel = "info",
        type: EventType = "message",
        data: Mapping[str, Any] | None = None,
    ) -> None:
        del type, data
        self.fuse.burn()
        self.messages.append((level, message))

    def published(self, iteration: IterationProgress, folder: Path, weight_version: str) -> None:
        self.fuse.burn()
        assert (folder / "report.json").exists()
        self.checkpoints[iteration.iteration] = (weight_version, iteration.direction_score)

    def warnings(self) -> list[str]:
        return [message for level, message in self.messages if level == "warn"]


@dataclass(slots=True)
class Game:
    """A loop on a folder with all that it asks; made anew for each run of it."""

    folder: Path
    settings: RsfSettings
    fuse: Fuse = field(default_factory=Fuse)
    num_prompts: int = 40
    patience_s: float = 60.0
    policy: PlayedPolicy = field(init=False)
    rewards: PlayedRewards = field(init=False)
    trainer: PlayedTrainer = field(init=False)
    notes: Notes = field(init=False)

    def __post_init__(self) -> None:
        self.policy, self.rewards = PlayedPolicy(self.fuse), PlayedRewards(self.fuse)
        self.trainer, self.notes = PlayedTrainer(self.fuse), Notes(self.fuse)

    def loop(self) -> RsfLoop:
        self.folder.mkdir(exist_ok=True)
        prompts = self.folder / "prompts.jsonl"
        rows = [json.dumps({"prompt": f"Question {number}?"}) for number in range(self.num_prompts)]
        prompts.write_text("\n".join(rows) + "\n")
        given = LoopInput(
            job_id="job",
            settings=self.settings,
            seed=3,
            prompts=prompts,
            validation_prompts=None,
            sft=None,
            base=self.folder,
            folder=self.folder,
        )
        ports = LoopPorts(self.policy, self.rewards, self.trainer, self.policy)
        return RsfLoop(given, ports, self.notes, patience_s=self.patience_s)

    @property
    def history(self) -> list[dict[str, Any]]:
        """What is known of all iterations, but for times."""
        assert self.notes.last is not None
        return [one.model_dump(exclude={"seconds"}) for one in self.notes.last.history]


def settings(**changes: Any) -> RsfSettings:
    """Return settings of a small loop."""
    values = {
        "iterations": 2,
        "prompts_per_iteration": 20,
        "candidates_per_prompt": 3,
        "directions": 3,
        "concurrency": 4,
        "evaluation_prompts": 3,
        "evaluation_directions": 2,
    }
    return RsfSettings.model_validate({**values, **changes})
