"""Fine-tune a policy on selected completions, by TRL, PEFT and Accelerate.

A run that is broken off goes on from its last complete checkpoint and ends with the same weights:
the order of the examples is drawn beforehand, and everything else is in the checkpoint.
"""

from __future__ import annotations

import hashlib
import math
import random
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from steerward.models.chat import ChatEncoder
from steerward.models.pretrained import load_tokenizer
from steerward.protocol.sft_work import REPORT_FILE, SftJob, SftReport
from steerward.training.files import write_json
from steerward.training.sft_data import Examples, as_dataset, ordered, read_examples
from steerward.training.sft_folder import check_free, complete_checkpoint, whole_folder
from steerward.training.sft_loss import BasePolicy, PolicyTrainer
from steerward.training.sft_measure import mean_divergence
from steerward.training.sft_policy import (
    end_tokens,
    load_base,
    load_trained,
    lora_config,
    save_adapter,
    save_policy,
)
from steerward.training.sft_settings import device_of, trainer_settings
from steerward.training.sft_steps import Emit, Steps

_MEASURED_EXAMPLES = 256
_LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate")


def fine_tune(job: SftJob, emit: Emit) -> SftReport:
    """Fine-tune as a job says; return its report if that has been done before.

    Args:
        job: What is given.
        emit: Called with each optimiser step, in the first process.

    Raises:
        SteerwardError: If files or settings do not fit, or the loss is no number.
    """
    report = job.out / REPORT_FILE
    if report.is_file():
        return SftReport.model_validate_json(report.read_bytes())
    check_free(job.out)
    job.work.mkdir(parents=True, exist_ok=True)
    return FineTuning(job, emit).run()


class FineTuning:
    """One fine-tuning, from a job to a folder."""

    def __init__(self, job: SftJob, emit: Emit) -> None:
        self._job = job
        self._emit = emit
        self._state = PartialState(cpu=not torch.cuda.is_available())
        self._device = device_of(self._state)
        self._tokenizer = load_tokenizer(job.base)
        self._model: Any = load_trained(job, self._device)
        read = self._read()
        self.examples = read.kept
        self._left_out = read.left_out

    def run(self) -> SftReport:
        """Train, measure and save."""
        job, runs = self._job, self._job.work / "checkpoints"
        identity = _identity(job)
        checkpoint: Path | None = None
        with self._state.main_process_first():
            checkpoint = complete_checkpoint(runs, identity=identity)
        base = self._base() if job.training.kl_coef else None
        trainer = self.trainer(runs, base)
        # Its batches were sized for as many.
        assert trainer.args.world_size == self._state.num_processes
        steps = Steps(trainer.sums, self._emit, identity, self._state)
        trainer.add_callback(steps)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        kl = self._measure(trainer, base or self._base())
        report = self._report(trainer, steps, kl)
        self._save(trainer, report)
        if self._state.is_main_process:
            shutil.rmtree(runs, ignore_errors=True)
        return report

    def _read(self) -> Examples:
        text = self._model.config.get_text_config()
        return read_examples(
            self._job.data,
            ChatEncoder(self._tokenizer),
            end_tokens=end_tokens(self._model, self._tokenizer),
            max_positions=getattr(text, "max_position_embeddings", None) or 2**31,
        )

    def _base(self) -> BasePolicy:
        if self._job.training.method == "lora":
            return BasePolicy(None)
        return BasePolicy(load_base(self._job, self._device).eval().to(self._device))  # pyright: ignore

    def trainer(self, runs: Path, base: BasePolicy | None) -> PolicyTrainer:
        """Return TRL's trainer, ready to run.

        Args:
            runs: Folder for checkpoints.
            base: What the loss keeps the policy near to.
        """
        settings = self._job.training
        is_new_adapter = settings.method == "lora" and not isinstance(self._model, PeftModel)
        rows = ordered(
            self.examples,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            seed=self._job.seed,
        )
        return PolicyTrainer(
            base=base,
            kl_coef=settings.kl_coef,
            model=self._model,
            args=trainer_settings(
                self._job,
                runs,
                num_rows=len(rows),
                parameters=self._model.num_parameters(),
                processes=self._state,
            ),
            train_dataset=as_dataset(rows),
            processing_class=_padded(self._tokenizer),
            peft_config=lora_config(settings.lora) if is_new_adapter else None,
        )

    def _measure(self, trainer: PolicyTrainer, base: BasePolicy) -> float:
        draw = random.Random(self._job.seed)
        count = min(_MEASURED_EXAMPLES, len(self.examples))
        return mean_divergence(trainer, base, draw.sample(self.examples, count))

    def _report(self, trainer: PolicyTrainer, steps: Steps, kl: float) -> SftReport:
        losses = steps.losses(trainer.state)
        last = losses[-math.ceil(len(losses) / 10) :]
        trained = [p.numel() for p in self._trained(trainer).parameters() if p.requires_grad]
        return SftReport(
            loss=sum(last) / len(last),
            kl=kl,
            tokens=steps.tokens,
            steps=trainer.state.global_step,
            left_out=self._left_out,
            seconds=steps.seconds,
            learning_rate=trainer.args.learning_rate,
            parameters=sum(trained),
            versions={name: version(name) for name in _LIBRARIES},
        )

    def _trained(self, trainer: PolicyTrainer) -> Any:
        return trainer.accelerator.unwrap_model(trainer.model_wrapped)

    def _save(self, trainer: PolicyTrainer, report: SftReport) -> None:
        # All processes give their part of the weights; one writes.
        state: Any = trainer.accelerator.get_state_dict(trainer.model_wrapped)
        if self._state.is_main_process:
            model = self._trained(trainer)
            with whole_folder(self._job.out) as folder:
                if self._job.training.method == "lora":
                    save_adapter(model, state, folder, base=self._job.base)
                else:
                    save_policy(model, state, folder, base=self._job.base)
                write_json(folder / REPORT_FILE, report.model_dump())
        self._state.wait_for_everyone()


def _identity(job: SftJob) -> str:
    """Return what a checkpoint must be of, for training to go on from it."""
    digest = hashlib.sha256(job.model_dump_json(exclude={"work", "out"}).encode())
    digest.update(hashlib.sha256(job.data.read_bytes()).digest())
    return digest.hexdigest()


def _padded(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    # What is padded with does not matter: nothing reads it, and it is not learned.
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
