"""The folder of one run of a sweep: settings, what was logged and measured, and the policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from steerward.protocol.errors import SteerwardError
from steerward.training.align.policies import save_aligned
from steerward.training.align.run_folder import (
    POLICY_FOLDER,
    SETTINGS_FILE,
    RunWriter,
    read_settings,
)
from steerward.training.sft_folder import mark_complete

Evaluate = Callable[[Any], Mapping[str, Any]]
"""Given a model; returns `rewards`, lists by column, and `characters`, of held-out prompts."""


class RunFolder:
    """A run's folder, which says what it is of.

    Args:
        path: Of the folder.
        settings: That are written; `identity` among them is what a run goes on by.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self._settings = dict(settings)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def is_finished(self) -> bool:
        """Whether there is a policy, trained with these settings.

        Raises:
            SteerwardError: If the folder is of another run.
        """
        if (self.path / SETTINGS_FILE).is_file():
            found = read_settings(self.path).model_extra or {}
            if found.get("identity") != self._settings["identity"]:
                raise SteerwardError(
                    f"{self.path} holds a run with other pairs, policy or settings; move it away, "
                    "or give another folder"
                )
        return (self.path / POLICY_FOLDER).is_dir()

    def writer(self) -> RunWriter:
        """Write the settings, and return what writes the rest."""
        return RunWriter(self.path, self._settings)

    def save(self, model: Any, state: Mapping[str, Any], *, base: Path) -> None:
        """Write the policy, in one step: from then on the run is finished."""
        save_aligned(model, self.path / POLICY_FOLDER, base=base, state=state)


class RunLog(TrainerCallback):
    """Keeps a run's log, and marks its checkpoints when all of one is on the disk.

    Args:
        writer: Of the folder, in the first process.
        identity: Of the run.
    """

    def __init__(self, writer: RunWriter | None, *, identity: str) -> None:
        self._writer = writer
        self._identity = identity

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Forget what was logged after the checkpoint that training goes on from."""
        del args, control
        if self._writer is not None:
            self._writer.drop_after(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Add a line."""
        del args, control
        logs = more.get("logs")
        if self._writer is not None and logs:
            self._writer.log(state.global_step, {key: float(value) for key, value in logs.items()})

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Mark the checkpoint."""
        del control
        if self._writer is not None:
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            mark_complete(checkpoint, identity=self._identity)
