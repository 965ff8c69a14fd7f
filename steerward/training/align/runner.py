"""What every run has in common: rows and rewards in, a folder with a policy out."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
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
from steerward.training.align.run_folder import RunWriter
from steerward.training.files import write_json
from steerward.training.sft_folder import complete_checkpoint
from steerward.training.sft_settings import device_of

_LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate")
_AT_ONCE = 32


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
        self._measures = [*self._columns.functions, *self._further_measures()]
        self._identity = run.identity()

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
    def _num_rows(self) -> int:
        """Return how many rows are trained on."""

    def _further_measures(self) -> list[RewardFunction]:
        """Return what held-out answers are measured by and the policy is not trained on."""
        return []

    def run(self) -> AlignReport:
        """Train, measure and save."""
        runs = self._run.out / "checkpoints"
        is_first = self._state.is_main_process
        writer = RunWriter(self._run.out, self._told()) if is_first else None
        with self._state.main_process_first():
            checkpoint = complete_checkpoint(runs, identity=self._identity)
        recording = Recording(
            writer,
            self._measured(),
            evaluation_steps=self._run.settings.evaluation_steps,
            identity=self._identity,
            processes=self._state,
            observer=self._observer,
        )
        trainer = self._trainer(runs)
        record(trainer, recording)
        with quiet_loading():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        report = self._save(trainer, recording)
        if is_first:
            shutil.rmtree(runs, ignore_errors=True)
        return report

    def _told(self) -> dict[str, Any]:
        """Return what the folder of the run says of it."""
        return {
            "method": self._run.method,
            "name": self._run.name or self._run.method,
            "objectives": [one.__name__ for one in self._measures] or list(self._columns.weights),
            "weights": dict(self._columns.weights),
            "identity": self._identity,
            "base": weight_version(self._run.base),
            "rows": self._num_rows(),
            "held_out_prompts": len(self._held_out),
            "settings": self._run.settings.model_dump(mode="json"),
            "versions": {name: version(name) for name in _LIBRARIES},
        }

    def _measured(self) -> HeldOut | None:
        if not self._held_out or not self._measures:
            return None
        if str(getattr(self._state.distributed_type, "value", "")) in ("FSDP", "DEEPSPEED"):
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
            batch_size=_AT_ONCE,
            seed=self._run.settings.seed,
        )

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
