"""What is told, measured and kept while MAPL trains."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback, TrainerState

from steerward.protocol.errors import TrainingFailed
from steerward.training.align.mapl.evaluate import HeldOutRows
from steerward.training.align.mapl.settings import MaplConfig
from steerward.training.align.run_folder import RunWriter
from steerward.training.sft_folder import mark_complete


class Progress(TrainerCallback):
    """Writes log and evaluations, stops where the loss is no number, and closes checkpoints.

    Args:
        writer: Of the run's folder, in the first process.
        held_out: What is measured.
        settings: Of the run.
        identity: Of the run; marks its checkpoints.
        told: Called with each line of the log.
    """

    def __init__(
        self,
        writer: RunWriter | None,
        held_out: HeldOutRows,
        settings: MaplConfig,
        identity: str,
        told: Callable[[int, dict[str, float]], None] | None,
    ) -> None:
        self._writer = writer
        self._held_out = held_out
        self._settings = settings
        self._identity = identity
        self._told = told

    def on_train_begin(self, *given: Any, model: Any, **_: Any) -> None:
        """Measure the model as it was before training."""
        state: TrainerState = given[1]
        if state.global_step == 0:
            self._measure(state, model)

    def on_step_end(self, *given: Any, model: Any, **_: Any) -> None:
        """Measure every few steps, and behind the last."""
        state: TrainerState = given[1]
        is_last = state.global_step >= state.max_steps
        if is_last or state.global_step % self._settings.evaluation_steps == 0:
            self._measure(state, model)

    def on_log(self, *given: Any, logs: dict[str, Any], **_: Any) -> None:
        """Tell of a step."""
        state: TrainerState = given[1]
        if "loss" not in logs:
            return  # The summary of the whole training.
        if not math.isfinite(float(logs["loss"])):
            raise TrainingFailed(
                f"the loss of step {state.global_step} is {logs['loss']}; lower learning_rate"
            )
        if self._writer is not None:
            numbers = {name: float(v) for name, v in logs.items() if isinstance(v, int | float)}
            self._writer.log(state.global_step, numbers)
            if self._told is not None:
                self._told(state.global_step, numbers)

    def on_save(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        """Let training go on from here, when every process has written its part."""
        PartialState().wait_for_everyone()
        if self._writer is not None:
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            mark_complete(checkpoint, identity=self._identity)

    def _measure(self, state: TrainerState, model: Any) -> None:
        found = self._held_out.measure(model)
        if self._writer is not None:
            self._writer.evaluate(
                state.global_step, rewards=found.right, characters=found.characters
            )
            if self._told is not None:
                self._told(state.global_step, found.means())
