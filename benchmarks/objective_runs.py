"""Arms of a benchmark that train the shipped policy on objectives of the shipped reward model.

Each arm and seed is a run of `steerward.training.align` with a folder of its own. A folder that
holds a finished run is not trained again, so that a benchmark that was stopped goes on.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import TrainerCallback

from benchmarks.prompts import prompts_of
from steerward.models.source import resolve_source
from steerward.protocol.alignment import GrpoSettings, PamaSettings
from steerward.training.align.grpo.aggregation import Aggregated, Aggregation
from steerward.training.align.local_rewards import local_source
from steerward.training.align.online import OnlineRun
from steerward.training.align.run import AlignRun, align

WEIGHTS_MS = "weights_ms"


@dataclass(frozen=True, slots=True)
class TrainingSetting:
    """What is trained and measured, whatever the arms are."""

    prompts: str = ""
    """JSON lines with prompt, split and source; default: questions of our own."""
    sources: str = "self_dialogue,just_eval"
    policy: str = "pocket-policy"
    reward_model: str = "pocket"
    objectives: str = "helpfulness,harmlessness"
    """Of the reward model; a minus before one means that less is better."""
    arms: str = ""
    """All if empty."""
    steps: int = 16
    seeds: int = 3
    prompts_per_step: int = 6
    generations: int = 8
    max_tokens: int = 40
    learning_rate: float = 3e-4
    kl_coef: float = 0.0
    held_out: int = 96
    measure_every: int = 8
    work: str = ""
    """Folder that keeps the runs; default: one that is deleted at the end."""
    plot: str = ""

    def weights(self) -> dict[str, float]:
        """Return the objectives with equal weights; below 0 where less is better."""
        told = self.objectives.split(",")
        return {one.removeprefix("-"): -1.0 if one.startswith("-") else 1.0 for one in told}

    def shared(self) -> dict[str, Any]:
        """Return the settings that all arms have in common."""
        return {
            "weights": self.weights(),
            "learning_rate": self.learning_rate,
            "kl_coef": self.kl_coef,
            "steps": self.steps,
            "prompts_per_step": self.prompts_per_step,
            "group_size": self.generations,
            "max_tokens": self.max_tokens,
            "evaluation_prompts": self.held_out,
            "evaluation_steps": self.measure_every,
        }


@dataclass(frozen=True, slots=True)
class Arm:
    """A way to train."""

    settings: GrpoSettings | PamaSettings
    run: type[OnlineRun] | None = None
    """What trains; None: the runs of Steerward, with the time of the aggregation logged."""


class Timed:
    """An aggregation that tells the processor's milliseconds that it took, among its metrics."""

    def __init__(self, aggregation: Aggregation) -> None:
        self._aggregation = aggregation

    def __call__(self, rewards_NK: Tensor, *, group_size: int, weights_K: Tensor) -> Aggregated:
        """Return one advantage a sample; see `Aggregation`."""
        started = time.process_time()
        found = self._aggregation(rewards_NK, group_size=group_size, weights_K=weights_K)
        took = 1e3 * (time.process_time() - started)
        return replace(found, metrics={**found.metrics, WEIGHTS_MS: took})


class CpuTime(TrainerCallback):
    """Logs the processor's seconds of each optimiser step, whatever else runs, as `cpu_s`."""

    def __init__(self, trainer: Any) -> None:
        self._metrics = trainer._metrics["train"]
        self._started = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        del args, state, control
        self._started = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop it, before the held-out prompts are answered."""
        del args, state, control
        self._metrics["cpu_s"].append(time.process_time() - self._started)


class TimedRun(OnlineRun):
    """A run that logs the time of its steps, and of each aggregation as `align/weights_ms`."""

    def _trainer(self, runs: Path) -> Any:
        trainer = super()._trainer(runs)
        trainer._aggregation = Timed(trainer._aggregation)
        trainer.add_callback(CpuTime(trainer))
        return trainer


class Told:
    """Tells on the standard error where a run is."""

    def __init__(self, name: str) -> None:
        self._name = name

    def stepped(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        """Say nothing of single steps."""

    def measured(self, step: int, rewards: Mapping[str, float]) -> None:
        """Print the mean rewards of the held-out prompts."""
        told = ", ".join(f"{name} {value:+.3f}" for name, value in rewards.items())
        print(f"{self._name}, step {step}: {told}", file=sys.stderr, flush=True)

    def noted(self, text: str) -> None:
        """Say nothing of it: the folder of the run tells."""


def chosen(arms: Mapping[str, Arm], names: str) -> dict[str, Arm]:
    """Return the arms of a list with commas; all if it is empty.

    Raises:
        SystemExit: If an arm is not known.
    """
    wanted = names.split(",") if names else list(arms)
    if not set(wanted) <= set(arms):
        sys.exit(f"arms are of {', '.join(arms)}; not {names}")
    return {name: arms[name] for name in wanted}


def write_prompts(setting: TrainingSetting, work: Path) -> tuple[Path, Path]:
    """Write the prompts to train on, and the held-out ones; return both files."""
    work.mkdir(parents=True, exist_ok=True)
    training, held_out = prompts_of(
        setting.prompts, sources=setting.sources, held_out=setting.held_out
    )
    files = work / "training.jsonl", work / "held_out.jsonl"
    for path, prompts in zip(files, (training, held_out), strict=True):
        path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    return files


def train_arms(
    setting: TrainingSetting, arms: Mapping[str, Arm], work: Path
) -> dict[str, list[Path]]:
    """Return the folders of runs by arm, one a seed.

    All arms of a seed run one after the other, so that a slow spell of the machine hits them all.
    """
    rows, validation = write_prompts(setting, work)
    source = local_source(resolve_source(setting.reward_model))
    folders: dict[str, list[Path]] = {name: [] for name in arms}
    for seed in range(setting.seeds):
        for name, arm in arms.items():
            run = AlignRun(
                arm.settings.model_copy(update={"seed": seed}),
                resolve_source(setting.policy),
                rows,
                work / name / str(seed),
                validation=validation,
                name=name,
            )
            if run.report.is_file():
                # Refuses what was trained with other settings.
                align(run, source)
            else:
                (arm.run or TimedRun)(run, source, Told(f"{name}, seed {seed}")).run()
            folders[name].append(run.out)
    return folders


def folder_of(setting: TrainingSetting, work: Path) -> Path:
    """Return the folder that runs are kept in."""
    return Path(setting.work) if setting.work else work


def all_folders(folders: Mapping[str, Sequence[Path]]) -> list[Path]:
    """Return all folders, arm by arm."""
    return [folder for found in folders.values() for folder in found]
