"""What a loop tells of itself while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from steerward.protocol.fine_tuning import EventLevel, EventType, IterationProgress, JobProgress


class Observer(Protocol):
    """Is told where a loop is; calls come from the event loop and return at once."""

    def progress(self, progress: JobProgress) -> None:
        """Take note of where the loop is."""
        ...

    def event(
        self,
        message: str,
        *,
        level: EventLevel = "info",
        type: EventType = "message",
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Take note of something that happened."""
        ...

    def published(self, iteration: IterationProgress, folder: Path, weight_version: str) -> None:
        """Take note that the policy of an iteration is served."""
        ...
