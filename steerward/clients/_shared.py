"""Scoring calls that several reward functions of one batch share."""

from __future__ import annotations

import concurrent.futures
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from steerward.clients._samples import Scored


@dataclass(slots=True, eq=False)
class _Batch:
    """A scoring call, and who had its answer."""

    prompts: Sequence[Any]
    completions: Sequence[Any]
    answer: concurrent.futures.Future[list[Scored | None]]
    taken: set[str] = field(default_factory=set[str])


class SharedBatches:
    """Scoring calls that columns share. Safe between threads.

    Args:
        num_columns: Which share a call; it is dropped when all have asked for it.
        max_batches: Calls that are kept while columns have yet to ask; the oldest goes first.
    """

    def __init__(self, *, num_columns: int, max_batches: int) -> None:
        self._num_columns = num_columns
        self._lock = threading.Lock()
        self._batches: deque[_Batch] = deque(maxlen=max_batches)

    def take(
        self,
        column: str,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        start: Callable[[], concurrent.futures.Future[list[Scored | None]]],
    ) -> concurrent.futures.Future[list[Scored | None]]:
        """Return the call for a batch; a column that had it asks for the next step, anew.

        Args:
            column: Who asks.
            prompts: Of the batch; with the completions they tell it from others.
            completions: See `prompts`.
            start: Makes the call, if no other column has.
        """
        with self._lock:
            for batch in self._batches:
                if (
                    column not in batch.taken
                    and batch.prompts == prompts
                    and batch.completions == completions
                ):
                    break
            else:
                batch = _Batch(prompts, completions, start())
                self._batches.append(batch)
            batch.taken.add(column)
            if len(batch.taken) == self._num_columns:
                self._batches.remove(batch)
            return batch.answer
