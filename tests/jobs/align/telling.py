"""What a run of an optimiser told, all of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steerward.protocol.fine_tuning import EventLevel, EventType, IterationProgress, JobProgress


class Told:
    """An observer that keeps everything."""

    def __init__(self) -> None:
        self.progresses: list[JobProgress] = []
        self.messages: list[str] = []
        self.warnings: list[str] = []
        self.metrics: list[dict[str, Any]] = []
        self.checkpoints: list[tuple[int, str]] = []

    def progress(self, progress: JobProgress) -> None:
        self.progresses.append(progress)

    def event(
        self,
        message: str,
        *,
        level: EventLevel = "info",
        type: EventType = "message",
        data: Mapping[str, Any] | None = None,
    ) -> None:
        self.messages.append(message)
        if level == "warn":
            self.warnings.append(message)
        if type == "metrics":
            self.metrics.append(dict(data or {}))

    def published(self, iteration: IterationProgress, folder: Path, weight_version: str) -> None:
        assert folder.is_dir()
        self.checkpoints.append((iteration.iteration, weight_version))
