"""The folder of a run: what an optimiser writes line by line, and what the report reads.

    settings.json      method, name, objectives (the reward columns), and what else was set
    log.jsonl          a line a logged step: {"step": 5, "metrics": {"loss": 0.2}}
    evaluations.jsonl  a line an evaluation of held-out prompts:
                       {"step": 0, "rewards": {"helpfulness": [0.1, null]}, "characters": [80, 95]}
    policy/            the result

A kill at any moment costs at most the line that was being written. Free of torch.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from steerward.protocol.errors import DatasetRefused, InvalidRequest, NonFiniteScore, brief
from steerward.protocol.validation import invalid_request

SETTINGS_FILE = "settings.json"
LOG_FILE = "log.jsonl"
EVALUATIONS_FILE = "evaluations.jsonl"
POLICY_FOLDER = "policy"


class RunSettings(BaseModel):
    """What a run says of itself. Further keys are the optimiser's own."""

    model_config = ConfigDict(frozen=True, extra="allow")

    method: str = Field(min_length=1)
    name: str = Field(min_length=1)
    """Runs of one method and one name differ in their seed only."""
    objectives: tuple[str, ...] = Field(min_length=1)
    """Reward columns that evaluations hold."""

    @model_validator(mode="after")
    def _objectives_are_unique(self) -> RunSettings:
        if len(set(self.objectives)) < len(self.objectives):
            raise ValueError("objectives repeat a name")
        return self


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True)

    step: int = Field(ge=0)
    """Optimiser steps done; 0: before any training."""


class LoggedStep(_Line):
    """Metrics of a step; null for one that was no finite number."""

    metrics: dict[str, FiniteFloat | None]


class Evaluation(_Line):
    """Rewards of answers to the held-out prompts, in the same order each time."""

    rewards: dict[str, list[FiniteFloat | None]]
    """By column; null where it does not apply to the prompt."""
    characters: list[int] = Field(min_length=1)
    """Lengths of the answers."""

    @model_validator(mode="after")
    def _is_of_the_same_prompts(self) -> Evaluation:
        for name, values in self.rewards.items():
            if len(values) != len(self.characters):
                raise ValueError(
                    f"{len(values)} rewards of {name!r} for {len(self.characters)} answers"
                )
        return self


LineT = TypeVar("LineT", bound=_Line)


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it lies on the disk, finished or not."""

    folder: Path
    settings: RunSettings
    log: list[LoggedStep]
    """By step, each once."""
    evaluations: list[Evaluation]
    """By step, each once."""


class RunWriter:
    """Appends to the folder of a run; each line is on the disk when a call returns.

    Args:
        folder: Of the run; made if it is missing.
        settings: With `method`, `name` and `objectives`, and everything else that was set.

    Raises:
        InvalidRequest: If these are missing, or the folder holds another run.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._settings = _run_settings(settings)
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        check_folder(folder, settings)
        text = json.dumps(dict(settings), indent=2, ensure_ascii=False, default=str)
        _replace(folder / SETTINGS_FILE, text + "\n")
        for name in (LOG_FILE, EVALUATIONS_FILE):
            _drop_half_line(folder / name)

    def note(self, notes: Mapping[str, Any]) -> None:
        """Add to the settings what was known only later."""
        path = self._folder / SETTINGS_FILE
        told = {**json.loads(path.read_text(encoding="utf-8")), "notes": dict(notes)}
        _replace(path, json.dumps(told, indent=2, ensure_ascii=False, default=str) + "\n")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append the metrics of a step; those that are no finite number become null."""
        known = {key: value if math.isfinite(value) else None for key, value in metrics.items()}
        self._append(LOG_FILE, LoggedStep(step=step, metrics=known))

    def evaluate(
        self,
        step: int,
        *,
        rewards: Mapping[str, Sequence[float | None]],
        characters: Sequence[int],
    ) -> None:
        """Append an evaluation of the held-out prompts.

        Raises:
            NonFiniteScore: If a reward is NaN or infinite; None says that it does not apply.
            InvalidRequest: If an objective of the run is missing, or lengths differ.
        """
        _check_rewards(rewards)
        missing = [name for name in self._settings.objectives if name not in rewards]
        if missing:
            raise InvalidRequest(
                f"the evaluation of step {step} lacks {', '.join(map(brief, missing))}; give a "
                "reward, or None, for each objective of the run"
            )
        given = {name: list(values) for name, values in rewards.items()}
        try:
            line = Evaluation(step=step, rewards=given, characters=list(characters))
        except ValidationError as error:
            raise InvalidRequest(
                f"the evaluation of step {step}: {invalid_request(error.errors()).message}"
            ) from error
        self._append(EVALUATIONS_FILE, line)

    def drop_after(self, step: int) -> None:
        """Forget what was written of later steps, for a run that goes on from a checkpoint."""
        files: dict[str, type[_Line]] = {LOG_FILE: LoggedStep, EVALUATIONS_FILE: Evaluation}
        for name, schema in files.items():
            path = self._folder / name
            if path.exists():
                kept = [one for one in _read_lines(path, schema) if one.step <= step]
                _replace(path, "".join(one.model_dump_json() + "\n" for one in kept))

    def _append(self, name: str, line: BaseModel) -> None:
        with (self._folder / name).open("a", encoding="utf-8") as file:
            file.write(line.model_dump_json() + "\n")
            file.flush()
            os.fsync(file.fileno())


def check_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder that holds another run, before anything is done for this one.

    Args:
        folder: Of the run; may be missing.
        settings: With `method`, `name` and `objectives`, and perhaps an `identity`.

    Raises:
        InvalidRequest: If these are missing, or the folder holds another run.
    """
    own = _run_settings(settings)
    if not (folder / SETTINGS_FILE).exists():
        return
    found = read_settings(folder)
    identities = [(one.model_extra or {}).get("identity") for one in (found, own)]
    if None not in identities and identities[0] != identities[1]:
        raise InvalidRequest(
            f"{folder} holds a run with other rows, policy, rewards or settings; give another "
            "folder, or delete it"
        )
    for key in ("method", "name", "objectives"):
        if getattr(found, key) != getattr(own, key):
            raise InvalidRequest(
                f"{folder} holds a run with {key} {getattr(found, key)!r}, not "
                f"{getattr(own, key)!r}; give another folder, or delete it"
            )


def _run_settings(settings: Mapping[str, Any]) -> RunSettings:
    try:
        return RunSettings.model_validate(dict(settings))
    except ValidationError as error:
        raise InvalidRequest(
            f"the settings of a run: {invalid_request(error.errors()).message}"
        ) from error


def read_run(folder: Path) -> Run:
    """Return a run, finished or not; the line that a kill cut short is left out.

    Raises:
        DatasetRefused: If the folder is no run, a line is broken, or evaluations lack an objective
            or are of different prompts.
    """
    settings = read_settings(folder)
    run = Run(
        folder,
        settings,
        _read_lines(folder / LOG_FILE, LoggedStep),
        _read_lines(folder / EVALUATIONS_FILE, Evaluation),
    )
    for one in run.evaluations:
        missing = [name for name in settings.objectives if name not in one.rewards]
        if missing:
            raise DatasetRefused(
                f"{folder / EVALUATIONS_FILE}, step {one.step}: no rewards of "
                f"{', '.join(map(brief, missing))}, which {SETTINGS_FILE} names"
            )
        if len(one.characters) != len(run.evaluations[0].characters):
            raise DatasetRefused(
                f"{folder / EVALUATIONS_FILE}, step {one.step}: {len(one.characters)} prompts, "
                f"step {run.evaluations[0].step} has {len(run.evaluations[0].characters)}; "
                "evaluations of one run must be of the same prompts"
            )
    return run


def read_settings(folder: Path) -> RunSettings:
    """Return what a run says of itself.

    Raises:
        DatasetRefused: If the folder is no run.
    """
    path = folder / SETTINGS_FILE
    if not path.is_file():
        raise DatasetRefused(f"{folder} is no folder of a run: it has no {SETTINGS_FILE}")
    try:
        return RunSettings.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise DatasetRefused(f"{path}: {invalid_request(error.errors()).message}") from error


def _read_lines(path: Path, schema: type[LineT]) -> list[LineT]:
    found: dict[int, LineT] = {}
    for number, line in _whole_lines(path):
        try:
            one = schema.model_validate_json(line)
        except ValidationError as error:
            raise DatasetRefused(
                f"{path}, line {number}: {invalid_request(error.errors()).message}"
            ) from error
        # A run that went on from a checkpoint tells of the steps behind it once more.
        for step in [step for step in found if step >= one.step]:
            del found[step]
        found[one.step] = one
    return list(found.values())


def _whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    if not path.is_file():
        return
    lines = path.read_bytes().split(b"\n")
    # Behind the last end of a line is nothing, or what a kill left of one.
    for number, line in enumerate(lines[:-1], start=1):
        if line.strip():
            yield number, line


def _drop_half_line(path: Path) -> None:
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        with path.open("r+b") as file:
            file.truncate(whole)
            os.fsync(file.fileno())


def _check_rewards(rewards: Mapping[str, Sequence[float | None]]) -> None:
    for name, values in rewards.items():
        for place, value in enumerate(values):
            if value is not None and not math.isfinite(value):
                raise NonFiniteScore(
                    f"the reward {brief(name)!r} of held-out prompt {place} is {value}; give a "
                    "number, or None where it does not apply"
                )


def _replace(path: Path, text: str) -> None:
    """Write a file in one step."""
    building = path.with_name(path.name + ".tmp")
    with building.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(building, path)
