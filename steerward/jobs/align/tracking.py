"""Where an optimiser is: from what its process says to what people watch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

from pydantic import ValidationError

from steerward.jobs.rsf.observer import Observer
from steerward.protocol.align_work import (
    ALIGN_LINES,
    AlignDone,
    AlignMeasured,
    AlignStep,
)
from steerward.protocol.alignment import PolicyTraining
from steerward.protocol.fine_tuning import IterationProgress, JobProgress

# Of all steps, so many are events; all of them are in the file of results.
_STEPS_TOLD = 50


class Tracking:
    """Hears the process of a job, and passes on what it says.

    Args:
        settings: Of the job.
        observer: Is told.
        history: Evaluations that earlier processes made.
    """

    def __init__(
        self,
        settings: PolicyTraining,
        observer: Observer,
        history: Sequence[IterationProgress] = (),
    ) -> None:
        self._settings = settings
        self._observer = observer
        self._measured = {one.iteration: one for one in history}
        self._first: tuple[int, float] | None = None
        self._now = JobProgress(iterations=0, history=self.history)
        self.done: AlignDone | None = None
        """How the run went, once it is done."""

    @property
    def history(self) -> list[IterationProgress]:
        """The evaluations, by step."""
        return [self._measured[step] for step in sorted(self._measured)]

    def begin(self) -> None:
        """A process begins, from the start or from a checkpoint."""
        self._first = None
        self._tell("waiting", steps_per_s=None)

    def end(self, trained_tokens: int) -> None:
        """The job is done."""
        self._tell("done", trained_tokens=trained_tokens, steps_per_s=None)

    def hear(self, line: bytes) -> None:
        """Take a line of the process; what is none of ours is a launcher's own word."""
        with suppress(ValidationError):
            match ALIGN_LINES.validate_json(line):
                case AlignStep() as step:
                    self._stepped(step)
                case AlignMeasured() as measured:
                    self._evaluated(measured)
                case AlignDone() as done:
                    self.done = done

    def _stepped(self, step: AlignStep) -> None:
        now = time.monotonic()
        self._first = self._first or (step.step, now)
        first, began_at = self._first
        rate = (step.step - first) / (now - began_at) if step.step > first else None
        is_last = step.step == step.steps
        is_measured = is_last or step.step % self._settings.evaluation_steps == 0
        self._tell(
            "evaluating" if is_measured and self._measured else "training",
            done=step.step,
            total=step.steps,
            steps_per_s=rate,
        )
        if is_last or step.step % max(1, step.steps // _STEPS_TOLD) == 0:
            self._observer.event(
                f"step {step.step:,} of {step.steps:,}",
                type="metrics",
                data={"step": step.step, "total_steps": step.steps, **step.metrics},
            )

    def _evaluated(self, measured: AlignMeasured) -> None:
        self._measured[measured.step] = IterationProgress(
            iteration=measured.step, rewards=measured.rewards
        )
        self._tell("training")
        self._observer.event(
            f"held-out prompts after step {measured.step:,}",
            type="metrics",
            data={"step": measured.step, **measured.rewards},
        )

    def _tell(
        self, step: Literal["waiting", "training", "evaluating", "done"], **changes: float | None
    ) -> None:
        self._now = self._now.model_copy(update={"step": step, "history": self.history, **changes})
        self._observer.progress(self._now)
