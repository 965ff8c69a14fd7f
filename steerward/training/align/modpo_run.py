"""The folder of one run: settings, what was logged, what was measured, and the policy."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import TrainerCallback

from steerward.protocol.errors import SteerwardError
from steerward.training.files import write_json
from steerward.training.sft_folder import mark_complete, whole_folder
from steerward.training.sft_policy import save_adapter, save_policy

Evaluate = Callable[[Any], Mapping[str, Any]]
"""Given a model; returns `rewards`, lists by column, and `characters`, of held-out prompts."""

_SETTINGS, _LOG, _EVALUATIONS, _POLICY = (
    "settings.json",
    "log.jsonl",
    "evaluations.jsonl",
    "policy",
)


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
        """Whether there is a policy, trained with these settings."""
        self.check()
        return (self.path / _POLICY).is_dir()

    def check(self) -> None:
        """Refuse a folder that is of another run.

        Raises:
            SteerwardError: If it is.
        """
        known = self.path / _SETTINGS
        if known.is_file():
            found = json.loads(known.read_text(encoding="utf-8"))
            if found.get("identity") != self._settings["identity"]:
                raise SteerwardError(
                    f"{self.path} holds a run with other pairs, policy or settings; move it away, "
                    "or give another folder"
                )

    def open(self) -> None:
        """Write the settings."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / _SETTINGS, self._settings)

    def write_evaluations(self, evaluations: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        """Write what was measured at which step."""
        _write_lines(
            self.path / _EVALUATIONS, [{"step": step, **found} for step, found in evaluations]
        )

    def write_log(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write all that was logged so far."""
        _write_lines(self.path / _LOG, [_logged(entry) for entry in history])

    def append_log(self, entry: Mapping[str, Any]) -> None:
        """Add what has just been logged."""
        with (self.path / _LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(_logged(entry)) + "\n")

    def save(self, model: Any, state: Mapping[str, Any], *, base: Path) -> None:
        """Write the policy, in one step: from then on the run is finished."""
        with whole_folder(self.path / _POLICY) as folder:
            if isinstance(model, PeftModel):
                save_adapter(model, dict(state), folder, base=base)
            else:
                save_policy(model, dict(state), folder, base=base)


class RunLog(TrainerCallback):
    """Keeps a run's log, and marks its checkpoints when all of one is on the disk."""

    def __init__(self, run: RunFolder, *, identity: str) -> None:
        self._run = run
        self._identity = identity

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Forget what was logged after the checkpoint that training goes on from."""
        del args, control
        if state.is_world_process_zero:
            self._run.write_log(state.log_history)

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Add a line."""
        del args, control
        if state.is_world_process_zero and state.log_history:
            self._run.append_log(state.log_history[-1])

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Mark the checkpoint."""
        del args, control
        if state.is_world_process_zero:
            checkpoint = self._run.checkpoints / f"checkpoint-{state.global_step}"
            mark_complete(checkpoint, identity=self._identity)


def _logged(entry: Mapping[str, Any]) -> dict[str, Any]:
    metrics = {key: float(value) for key, value in entry.items() if key != "step"}
    return {"step": int(entry["step"]), "metrics": metrics}


def _write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    lines = [json.dumps(row, allow_nan=False) + "\n" for row in rows]
    temporary.write_text("".join(lines), encoding="utf-8")
    os.replace(temporary, path)
