"""A run of an optimiser that samples from the policy as it learns: GRPO, PAMA, CGPO."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset, Features, Json, List, Value
from transformers import PreTrainedModel

from steerward.models.pretrained import quiet_loading
from steerward.models.source import weight_version
from steerward.protocol.alignment import CgpoSettings, GrpoSettings, OnlineSettings, PamaSettings
from steerward.protocol.errors import DatasetRefused, InvalidRequest
from steerward.training.align.columns import Columns, RewardSource, build_columns
from steerward.training.align.constrained import (
    constrained_trainer,
    satisfied_column,
    task_columns,
)
from steerward.training.align.measuring import HeldOut, RewardFunction
from steerward.training.align.online_settings import online_arguments
from steerward.training.align.policies import load_chat_tokenizer, load_policy, save_aligned
from steerward.training.align.recording import Recording, record
from steerward.training.align.rows import PromptRow, read_prompts, split_held_out
from steerward.training.align.run import AlignReport, AlignRun, RunObserver
from steerward.training.align.run_folder import RunWriter
from steerward.training.align.trainers import weighted_trainer
from steerward.training.files import write_json
from steerward.training.sft_folder import complete_checkpoint
from steerward.training.sft_settings import device_of

_LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate")
_TURNS = List({"role": Value("string"), "content": Value("string")})
_AT_ONCE = 32


class OnlineRun:
    """One run, from rows to a folder.

    Args:
        run: What is to be done.
        source: Of the rewards.
        observer: Is told of steps and evaluations.

    Raises:
        SteerwardError: If files and settings do not fit, or the folder holds another run.
    """

    def __init__(self, run: AlignRun, source: RewardSource, observer: RunObserver | None) -> None:
        assert isinstance(run.settings, OnlineSettings)
        self._run = run
        self._settings: OnlineSettings = run.settings
        self._observer = observer
        self._state = PartialState(cpu=not torch.cuda.is_available())
        self._device = device_of(self._state)
        self._tokenizer = load_chat_tokenizer(run.base)
        self._rows, self._held_out = self._read()
        self._columns = self._build_columns(source)
        self._identity = run.identity()
        self._measures = [*self._columns.functions, *self._further_measures()]

    def run(self) -> AlignReport:
        """Train, measure and save."""
        runs = self._run.out / "checkpoints"
        writer = RunWriter(self._run.out, self._told())
        with self._state.main_process_first():
            checkpoint = complete_checkpoint(runs, identity=self._identity)
        recording = Recording(
            writer,
            self._measured(),
            evaluation_steps=self._settings.evaluation_steps,
            identity=self._identity,
            processes=self._state,
            observer=self._observer,
        )
        trainer = self._trainer(runs)
        record(trainer, recording)
        with quiet_loading():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        report = self._save(trainer, recording)
        if self._state.is_main_process:
            shutil.rmtree(runs, ignore_errors=True)
        return report

    def _read(self) -> tuple[list[PromptRow], list[PromptRow]]:
        rows, num = read_prompts(self._run.rows), self._settings.evaluation_prompts
        if self._run.validation is not None:
            return rows, read_prompts(self._run.validation)[:num]
        return split_held_out(rows, num=num, seed=self._settings.seed)

    def _build_columns(self, source: RewardSource) -> Columns:
        settings = self._settings
        if isinstance(settings, CgpoSettings):
            return task_columns(source, settings)
        assert isinstance(settings, GrpoSettings | PamaSettings)
        return build_columns(source, settings.weights, logged=settings.logged)

    def _further_measures(self) -> list[RewardFunction]:
        """Return what held-out answers are measured by and the policy is not trained on."""
        if isinstance(self._settings, CgpoSettings):
            return [satisfied_column(self._settings, self._columns)]
        return []

    def _told(self) -> dict[str, Any]:
        """Return what the folder of the run says of it."""
        return {
            "method": self._run.method,
            "name": self._run.name or self._run.method,
            "objectives": [function.__name__ for function in self._measures],
            "weights": dict(self._columns.weights),
            "identity": self._identity,
            "base": weight_version(self._run.base),
            "prompts": len(self._rows),
            "held_out_prompts": len(self._held_out),
            "settings": self._settings.model_dump(mode="json"),
            "versions": {name: version(name) for name in _LIBRARIES},
        }

    def _measured(self) -> HeldOut | None:
        if not self._held_out:
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
            max_tokens=self._settings.max_tokens,
            temperature=self._settings.temperature,
            batch_size=_AT_ONCE,
            seed=self._settings.seed,
        )

    def _trainer(self, runs: Path) -> Any:
        settings = self._settings
        model = load_policy(self._run.base, settings, self._device)
        self._check_length(model)
        given: dict[str, Any] = {
            "arguments": self._arguments(runs, model),
            "model": model,
            "tokenizer": self._tokenizer,
            "rows": as_dataset(self._rows),
            "callbacks": self._tensorboard(),
        }
        if isinstance(settings, CgpoSettings):
            return constrained_trainer(settings, self._columns, folder=self._run.out, **given)
        assert isinstance(settings, GrpoSettings | PamaSettings)
        return weighted_trainer(settings, self._columns, **given)

    def _arguments(self, runs: Path, model: PreTrainedModel) -> dict[str, Any]:
        return online_arguments(
            self._settings, runs, parameters=model.num_parameters(), processes=self._state
        )

    def _check_length(self, model: PreTrainedModel) -> None:
        """Refuse prompts that leave no room for a completion; nothing is cut."""
        text = model.config.get_text_config()
        limit = getattr(text, "max_position_embeddings", None) or 2**31
        for place, row in enumerate([*self._rows, *self._held_out]):
            turns = [dict(turn) for turn in row.messages]
            ids: Any = self._tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, return_dict=False
            )
            if len(ids) + self._settings.max_tokens > limit:
                raise DatasetRefused(
                    f"prompt {place} has {len(ids):,} tokens, and with max_tokens "
                    f"{self._settings.max_tokens:,} that is more than the {limit:,} positions of "
                    "the policy; leave it out, or lower max_tokens"
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
            with quiet_loading():
                save_aligned(model, out, base=self._run.base, state=state)
        self._state.wait_for_everyone()
        report = AlignReport(
            steps=trainer.state.global_step,
            trained_tokens=int(trainer.state.num_input_tokens_seen),
            weight_version=weight_version(out),
            rewards=recording.rewards,
        )
        if self._state.is_main_process:
            write_json(self._run.report, report.as_json())
        return report


def as_dataset(rows: Sequence[PromptRow]) -> Dataset:
    """Return rows as TRL takes them; every column but the prompt keeps the shape it has."""
    names = sorted({name for row in rows for name in row.columns})
    records = [
        {
            "prompt": [dict(turn) for turn in row.messages],
            **{name: row.columns.get(name) for name in names},
        }
        for row in rows
    ]
    # Without it, objects of several rows would be given each other's keys.
    features = Features({"prompt": _TURNS, **{name: Json() for name in names}})
    return Dataset.from_list(records, features=features)
