"""What a run writes while it goes on: its log, its evaluations, and checkpoints that are whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
)

from steerward.protocol.errors import TrainingFailed
from steerward.training.align.measuring import HeldOut
from steerward.training.align.run import RunObserver
from steerward.training.align.run_folder import RunWriter
from steerward.training.sft_folder import mark_complete


def record(trainer: Trainer, recording: Recording) -> None:
    """Let a run be recorded, and keep transformers from printing what it logs."""
    for kind in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(kind)
    trainer.add_callback(recording)


class Recording(TrainerCallback):
    """Writes the folder of a run.

    Args:
        writer: Of the folder, in the first process.
        held_out: Prompts that the policy answers; None measures nothing.
        evaluation_steps: Optimiser steps between evaluations.
        identity: Of the work, for its checkpoints.
        processes: That train together.
        observer: Is told of steps and evaluations.
        notes: Asked once, after the first step, for what the settings do not say: which
            normalisation ran.
    """

    def __init__(
        self,
        writer: RunWriter | None,
        held_out: HeldOut | None,
        *,
        evaluation_steps: int,
        identity: str,
        processes: PartialState,
        observer: RunObserver | None,
        notes: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        self._writer = writer
        self._held_out = held_out
        self._evaluation_steps = evaluation_steps
        self._identity = identity
        self._processes = processes
        self._observer = observer
        self._notes = notes
        self.rewards: dict[str, float] = {}
        self.tokens = 0

    def on_train_begin(self, args: Any, state: TrainerState, *given: Any, **more: Any) -> None:
        """Drop what a run that was broken off wrote after its checkpoint; measure the start."""
        del args, given
        if self._writer is not None:
            self._writer.drop_after(state.global_step)
        if state.global_step == 0:
            self._measure(more["model"], 0)

    def on_log(self, args: Any, state: TrainerState, *_: Any, logs: Any, **__: Any) -> None:
        """Write what was logged of a step."""
        del args
        if "loss" not in logs:
            return  # The summary of the whole training.
        metrics = {name: float(v) for name, v in logs.items() if isinstance(v, int | float)}
        if not math.isfinite(metrics["loss"]) or not math.isfinite(metrics.get("grad_norm", 0.0)):
            raise TrainingFailed(
                f"step {state.global_step} has loss {metrics['loss']} and gradient norm "
                f"{metrics.get('grad_norm')}; lower learning_rate"
            )
        self.tokens = int(metrics.get("num_tokens", 0))
        if self._notes is not None:
            self._tell(self._notes())
            self._notes = None
        if self._writer is not None:
            self._writer.log(state.global_step, metrics)
            if self._observer is not None:
                self._observer.stepped(state.global_step, state.max_steps, metrics)

    def on_step_end(self, args: Any, state: TrainerState, *given: Any, **more: Any) -> None:
        """Measure, every so many steps and after the last."""
        del args
        control: TrainerControl = given[0]
        is_last = state.global_step >= state.max_steps
        if is_last:
            # From a checkpoint of the last step transformers would train a step too many. Killed
            # before its policy is written, the run does its last few steps again.
            control.should_save = False
        if state.global_step % self._evaluation_steps == 0 or is_last:
            self._measure(more["model"], state.global_step)

    def on_save(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        """Let training go on from here, when every process has written its part."""
        self._processes.wait_for_everyone()
        if self._processes.is_main_process:
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            mark_complete(checkpoint, identity=self._identity)

    def _tell(self, notes: Mapping[str, Any]) -> None:
        if self._writer is not None:
            self._writer.note(notes)
            if self._observer is not None:
                told = ", ".join(f"{name}: {value}" for name, value in notes.items())
                self._observer.noted(told)

    def _measure(self, model: Any, step: int) -> None:
        if self._held_out is None:
            return
        if self._writer is not None:
            found = self._held_out.measure(getattr(model, "module", model))
            self._writer.evaluate(step, rewards=found.rewards, characters=found.characters)
            self.rewards = found.means()
            if self._observer is not None:
                self._observer.measured(step, self.rewards)
        self._processes.wait_for_everyone()
