"""Where an optimiser is: from what its process says to what people watch."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any, Literal

from pydantic import ValidationError

from steerward.jobs.align.history import History
from steerward.jobs.rsf.observer import Observer
from steerward.protocol.align_work import (
    ALIGN_LINES,
    AlignDone,
    AlignMeasured,
    AlignNoted,
    AlignStep,
)
from steerward.protocol.alignment import PolicyTraining
from steerward.protocol.fine_tuning import IterationProgress, JobProgress

# Of all steps, and of all evaluations, so many are events; the file of results has all of them.
_MOST_TOLD = 50


class Tracking:
    """Hears the process of a job, and passes on what it says.

    Args:
        settings: Of the job.
        observer: Is told.
        history: Evaluations that earlier processes made.
    """

    def __init__(
        self, settings: PolicyTraining, observer: Observer, history: History | None = None
    ) -> None:
        self._settings = settings
        self._observer = observer
        self._history = history or History(settings.evaluation_steps)
        self._first: tuple[int, float] | None = None
        self._noted: str | None = None
        self._now = JobProgress(iterations=0, history=self._history.rows)
        self.furthest = 0
        """Of all steps that were heard of, the last."""
        self.done: AlignDone | None = None
        """How the run went, once it is done."""

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
                case AlignNoted() as noted:
                    self._note(noted.text)
                case AlignDone() as done:
                    self.done = done

    def _stepped(self, step: AlignStep) -> None:
        now = time.monotonic()
        self.furthest = max(self.furthest, step.step)
        self._first = self._first or (step.step, now)
        first, began_at = self._first
        rate = (step.step - first) / (now - began_at) if step.step > first else None
        is_last = step.step == step.steps
        is_measured = is_last or step.step % self._settings.evaluation_steps == 0
        self._tell(
            "evaluating" if is_measured and self._now.history else "training",
            done=step.step,
            total=step.steps,
            steps_per_s=rate,
        )
        if is_last or step.step % max(1, step.steps // _MOST_TOLD) == 0:
            self._observer.event(
                f"step {step.step:,} of {step.steps:,}",
                type="metrics",
                data={"step": step.step, "total_steps": step.steps, **step.metrics},
            )

    def _evaluated(self, measured: AlignMeasured) -> None:
        self._history.add(IterationProgress(iteration=measured.step, rewards=measured.rewards))
        self._tell("training", history=self._history.rows)
        if self._is_told(measured.step):
            self._observer.event(
                f"held-out prompts after step {measured.step:,}",
                type="metrics",
                data={"step": measured.step, **measured.rewards},
            )

    def _is_told(self, step: int) -> bool:
        """Return whether an evaluation is an event: the first, the last, and a share of others."""
        every = self._settings.evaluation_steps
        evaluations = self._now.total // every
        is_last = step == self._now.total
        return is_last or (step // every) % max(1, evaluations // _MOST_TOLD) == 0

    def _note(self, text: str) -> None:
        # Each process that goes on with the run says so again.
        if text != self._noted:
            self._noted = text
            self._observer.event(text)

    def _tell(
        self, step: Literal["waiting", "training", "evaluating", "done"], **changes: Any
    ) -> None:
        self._now = self._now.model_copy(update={"step": step, **changes})
        self._observer.progress(self._now)
