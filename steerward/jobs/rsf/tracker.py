"""Where a loop is: the numbers that people watch while it runs."""

from __future__ import annotations

import time
from typing import Any

from steerward.jobs.rsf.observer import Observer
from steerward.protocol.fine_tuning import IterationProgress, JobProgress


class Tracker:
    """Keeps the progress of a job, and passes each change on.

    Args:
        iterations: That were asked for.
        observer: Is told.
    """

    def __init__(self, iterations: int, observer: Observer) -> None:
        self._observer = observer
        self._by_iteration: dict[int, IterationProgress] = {}
        self._now = JobProgress(iterations=iterations)
        self._began_at = time.monotonic()
        self._tokens = 0

    @property
    def history(self) -> list[IterationProgress]:
        """What is known of each iteration, the start first."""
        return [self._by_iteration[number] for number in sorted(self._by_iteration)]

    @property
    def sampled_tokens(self) -> int:
        """Of all iterations; those of evaluation not counted."""
        return sum(one.sampled_tokens for one in self._by_iteration.values())

    @property
    def trained_tokens(self) -> int:
        """Of all iterations, epochs counted."""
        return sum(one.trained_tokens for one in self._by_iteration.values())

    def begin(self, step: Any, progress: IterationProgress, *, total: int = 0) -> None:
        """Begin a step of an iteration."""
        self._began_at, self._tokens = time.monotonic(), 0
        self._by_iteration[progress.iteration] = progress
        self._tell(step=step, iteration=progress.iteration, done=0, total=total, tokens_per_s=None)

    def keep(self, progress: IterationProgress) -> None:
        """Take over what is known of an iteration."""
        if self._by_iteration.get(progress.iteration) != progress:
            self._by_iteration[progress.iteration] = progress
            self._tell()

    def sampled(self, done: int, total: int, tokens: int) -> None:
        """Count a prompt whose samples are there."""
        self._tokens += tokens
        seconds = time.monotonic() - self._began_at
        rate = self._tokens / seconds if self._tokens and seconds > 0 else None
        self._tell(done=done, total=total, tokens_per_s=rate)

    def trained(self, done: int, total: int, loss: float) -> None:
        """Count optimiser steps."""
        number = self._now.iteration
        self._by_iteration[number] = self._by_iteration[number].model_copy(update={"loss": loss})
        self._tell(done=done, total=total)

    def _tell(self, **changes: Any) -> None:
        self._now = self._now.model_copy(
            update={
                **changes,
                "sampled_tokens": self.sampled_tokens,
                "trained_tokens": self.trained_tokens,
                "history": self.history,
            }
        )
        self._observer.progress(self._now)
