"""What every run has in common: rows and rewards in, a folder with a policy out."""

from __future__ import annotations

import hashlib
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from steerward.models.pretrained import quiet_loading
from steerward.models.source import weight_version
from steerward.protocol.errors import InvalidRequest
from steerward.training.align.columns import Columns, RewardSource
from steerward.training.align.measuring import HeldOut, RewardFunction
from steerward.training.align.policies import load_chat_tokenizer, save_aligned
from steerward.training.align.recording import Recording, record
from steerward.training.align.rows import PromptRow
from steerward.training.align.run import AlignReport, AlignRun, RunObserver
from steerward.training.align.run_folder import RunWriter, check_folder
from steerward.training.files import write_json
from steerward.training.sft_folder import complete_checkpoint
from steerward.training.sft_settings import device_of

_LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate")


class Runner(ABC):
    """One run, from rows to a folder.

    Args:
        run: What is to be done.
        source: Of the rewards.
        observer: Is told of steps and evaluations.

    Raises:
        SteerwardError: If files and settings do not fit, or the folder holds another run.
    """

    def __init__(self, run: AlignRun, source: RewardSource, observer: RunObserver | None) -> None:
        self._run = run
        self._observer = observer
        self._state = PartialState(cpu=not torch.cuda.is_available())
        self._device = device_of(self._state)
        self._tokenizer = load_chat_tokenizer(run.base)
        self._held_out = self._read()
        self._columns = self._build_columns(source)
        self._measures = self._build_measures()
        self._source_version: str | None = getattr(source, "version", None)
        self._base_version = weight_version(run.base)
        self._identity = run.identity(self._source_version)

    @abstractmethod
    def _read(self) -> list[PromptRow]:
        """Read the rows, and return the prompts that are held out."""

    @abstractmethod
    def _build_columns(self, source: RewardSource) -> Columns:
        """Return the columns that the run needs."""

    @abstractmethod
    def _trainer(self, runs: Path) -> Any:
        """Return TRL's trainer, whose checkpoints go into a folder."""

    @abstractmethod
    def _num_rows(self) -> int | dict[str, int]:
        """Return how many rows are trained on, or how many of each part."""

    def _build_measures(self) -> list[RewardFunction]:
        """Return what answers to held-out prompts are measured by."""
        return list(self._columns.functions)

    def run(self) -> AlignReport:
        """Train, measure and save."""
        runs = self._run.checkpoints
        is_first = self._state.is_main_process
        identity = self._work_identity()
        check_folder(self._run.out, self._named())
        if is_first:
            # For what is kept from one start to the next, such as margins.
            self._run.out.mkdir(parents=True, exist_ok=True)
        with self._state.main_process_first():
            checkpoint = complete_checkpoint(runs, identity=identity)
        # Before the folder is this run's: one that is refused may come again with other settings.
        trainer = self._trainer(runs)
        writer = RunWriter(self._run.out, self._told()) if is_first else None
        recording = Recording(
            writer,
            self._measured(trainer),
            evaluation_steps=self._run.settings.evaluation_steps,
            identity=identity,
            processes=self._state,
            observer=self._observer,
            notes=lambda: self._notes(trainer),
        )
        record(trainer, recording)
        with quiet_loading():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        report = self._save(trainer, recording)
        if is_first:
            shutil.rmtree(runs, ignore_errors=True)
        return report

    def _work_identity(self) -> str:
        """Return what a checkpoint must be of, for training to go on from it."""
        return self._identity

    def _named(self) -> dict[str, Any]:
        """Return what tells the folder of this run from those of others."""
        return {
            "method": self._run.method,
            "name": self._run.name or self._run.method,
            "objectives": [one.__name__ for one in self._measures] or list(self._columns.weights),
            "identity": self._identity,
        }

    def _told(self) -> dict[str, Any]:
        """Return what the folder of the run says of it, once its trainer is there."""
        return {
            **self._named(),
            "weights": dict(self._columns.weights),
            "base": self._base_version,
            "reward_model": self._source_version,
            "rows": self._num_rows(),
            "held_out_prompts": len(self._held_out),
            "held_out_digest": _digest(self._held_out),
            "settings": self._run.told_settings(),
            "versions": {name: version(name) for name in _LIBRARIES},
        }

    def _measured(self, trainer: Any) -> HeldOut | None:
        if not self._held_out or not self._measures:
            return None
        if _is_sharded(trainer.accelerator):
            raise InvalidRequest(
                "held-out prompts cannot be answered where weights are sharded over devices; set "
                "evaluation_prompts to 0, and measure the policy afterwards",
                param="evaluation_prompts",
            )
        return HeldOut(
            self._held_out,
            self._measures,
            self._tokenizer,
            max_tokens=self._run.settings.max_tokens,
            temperature=self._run.settings.temperature,
            top_p=getattr(self._run.settings, "top_p", 1.0),
            seed=self._run.settings.seed,
        )

    def _notes(self, trainer: Any) -> dict[str, Any]:
        """Return how TRL computes the loss, and what is done to rewards before."""
        loss = trainer.args.loss_type if hasattr(trainer.args, "loss_type") else None
        notes = {
            "advantages": getattr(trainer, "description", None),
            "loss": ", ".join(loss) if isinstance(loss, list) else loss,
            "learning_rate": trainer.args.learning_rate,
        }
        return {name: value for name, value in notes.items() if value is not None}

    def _tensorboard(self) -> list[Any]:
        if not self._run.tensorboard or not self._state.is_main_process:
            return []
        from steerward.training.align.tensorboard import tensorboard_callback

        return [tensorboard_callback(self._run.out / "tensorboard")]

    def _save(self, trainer: Any, recording: Recording) -> AlignReport:
        # All processes give their part of the weights; one writes.
        state: Any = trainer.accelerator.get_state_dict(trainer.model_wrapped)
        out = self._run.policy
        if self._state.is_main_process:
            model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
            # Of a run that was killed here, between the policy and its report.
            shutil.rmtree(out, ignore_errors=True)
            with quiet_loading():
                save_aligned(model, out, base=self._run.base, state=state)
        self._state.wait_for_everyone()
        report = AlignReport(
            steps=trainer.state.global_step,
            trained_tokens=recording.tokens,
            weight_version=weight_version(out),
            rewards=recording.rewards,
        )
        if self._state.is_main_process:
            write_json(self._run.report, report.as_json())
        return report


def _is_sharded(accelerator: Any) -> bool:
    """Return whether no process has all weights."""
    kind = str(getattr(accelerator.distributed_type, "value", ""))
    if kind == "DEEPSPEED":
        return accelerator.state.deepspeed_plugin.zero_stage == 3
    return kind == "FSDP"


def _digest(rows: Sequence[PromptRow]) -> str:
    """Return what rows must have in common to be the same held-out prompts."""
    told = json.dumps([[dict(turn) for turn in row.messages] for row in rows], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:12]
