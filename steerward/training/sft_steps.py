"""What is told of each step of a fine-tuning, and kept for the report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback, TrainerState

from steerward.protocol.errors import TrainingFailed
from steerward.protocol.sft_work import SftProgress
from steerward.training.sft_folder import mark_complete
from steerward.training.sft_loss import StepSums

Emit = Callable[[SftProgress], None]


class Steps(TrainerCallback):
    """Tells of each step, and keeps in the checkpoint what the report needs of it."""

    def __init__(self, sums: StepSums, emit: Emit, identity: str, processes: PartialState) -> None:
        self._sums = sums
        self._emit = emit
        self._identity = identity
        self._processes = processes
        self._started = time.monotonic()
        self._seconds_before = 0.0
        self.tokens = 0

    @property
    def seconds(self) -> float:
        """Of training, that before a kill among them."""
        return self._seconds_before + time.monotonic() - self._started

    def losses(self, state: TrainerState) -> list[float]:
        """Return the cross-entropy of every step."""
        return [entry["cross_entropy"] for entry in state.log_history if "cross_entropy" in entry]

    def on_train_begin(self, *given: Any, **_: Any) -> None:
        """Take up the sums of a run that was broken off."""
        state: TrainerState = given[1]
        last = next((one for one in reversed(state.log_history) if "cross_entropy" in one), {})
        self.tokens = int(last.get("completion_tokens", 0))
        self._seconds_before = float(last.get("seconds", 0.0))
        self._started = time.monotonic()

    def on_log(self, *given: Any, logs: dict[str, Any], **_: Any) -> None:
        """Tell of a step."""
        state: TrainerState = given[1]
        if "loss" not in logs:
            return  # The summary of the whole training.
        penalty, tokens = self._sums.take()
        loss = float(logs["loss"]) - penalty
        if not math.isfinite(loss):
            raise TrainingFailed(
                f"the loss of step {state.global_step} is {loss}; lower learning_rate"
            )
        self.tokens += tokens
        state.log_history[-1].update(
            cross_entropy=loss, completion_tokens=self.tokens, seconds=self.seconds
        )
        if self._processes.is_main_process:
            self._emit(
                SftProgress(
                    step=state.global_step, steps=state.max_steps, loss=loss, tokens=self.tokens
                )
            )

    def on_save(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        """Let training go on from here, when every process has written its part."""
        self._processes.wait_for_everyone()
        if self._processes.is_main_process:
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            mark_complete(checkpoint, identity=self._identity)
