"""A policy aligned by one of the optimisers: from rows and rewards to a folder of the run.

A run that is broken off goes on from its last complete checkpoint. It makes the same policy as
one that was not: the order of the prompts, the samples and all else that is drawn depend on the
seed and on what the checkpoint holds.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from steerward.models.source import weight_version
from steerward.protocol.alignment import (
    AlignMethod,
    CgpoSettings,
    GrpoSettings,
    ModpoSettings,
    PamaSettings,
)
from steerward.protocol.errors import InvalidRequest
from steerward.protocol.mapl import MaplSettings
from steerward.training.align.columns import RewardSource
from steerward.training.align.measuring import RewardFunction
from steerward.training.align.modpo.adapter_folders import adapter_version, check_adapters
from steerward.training.align.run_folder import read_settings

AnySettings = GrpoSettings | PamaSettings | CgpoSettings | ModpoSettings | MaplSettings
METHODS: Mapping[type[AnySettings], AlignMethod] = {
    GrpoSettings: "grpo",
    PamaSettings: "pama",
    CgpoSettings: "cgpo",
    ModpoSettings: "modpo",
    MaplSettings: "mapl",
}


@dataclass(frozen=True, slots=True)
class AlignRun:
    """What is to be done."""

    settings: AnySettings
    base: Path
    """Folder of the policy at the start."""
    rows: Path
    """File of prompts, or of preference pairs for MODPO and MAPL."""
    out: Path
    """Folder of the run."""
    validation: Path | None = None
    """File of held-out rows; None: some of `rows` are held out."""
    name: str | None = None
    """Of the run, in reports; None: the method."""
    tensorboard: bool = False
    """Whether the logs are written for TensorBoard as well."""
    cache: Path | None = None
    """Folder for what several runs share, such as margins; None: `out`."""
    margin_adapters: Mapping[str, Path] = field(default_factory=dict[str, Path])
    """Of MODPO: folders of adapters that DPO trained on `base`, by the objective whose margins are
    their implicit rewards."""
    margin_beta: float | None = None
    """That these were trained with; None: the run's own."""

    def told_settings(self) -> dict[str, Any]:
        """Return the settings without keys, which are nobody's business who reads the folder."""
        return _without_keys(self.settings.model_dump(mode="json"))

    def identity(self, rewards: str | None) -> str:
        """Return what a checkpoint must be of, for training to go on from it.

        Args:
            rewards: Version of the source of rewards, if it has one.
        """
        known = [self.method, self.told_settings(), weight_version(self.base), rewards]
        if self.margin_adapters:
            known += [self.margin_versions(), self.margin_beta]
        told = json.dumps(known, sort_keys=True)
        digest = hashlib.sha256(told.encode())
        for path in (self.rows, self.validation):
            digest.update(b"" if path is None else hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    def margin_versions(self) -> dict[str, str]:
        """Return what the margins from adapters depend on, by objective."""
        return {name: adapter_version(folder) for name, folder in self.margin_adapters.items()}

    @property
    def method(self) -> AlignMethod:
        """Name of the optimiser."""
        return METHODS[type(self.settings)]

    @property
    def policy(self) -> Path:
        """Folder of the policy, or of the adapter, that the run ends with."""
        return self.out / "policy"

    @property
    def checkpoints(self) -> Path:
        """Folder of what a killed run goes on from."""
        return self.out / "checkpoints"

    @property
    def report(self) -> Path:
        """File of the report, written when the policy is there."""
        return self.out / "report.json"


@dataclass(frozen=True, slots=True)
class AlignReport:
    """How a run went."""

    steps: int
    """Optimiser steps."""
    trained_tokens: int
    """Of prompts and completions that were learned from."""
    weight_version: str
    """Of the policy at the end."""
    rewards: Mapping[str, float]
    """Mean of each column over the held-out prompts at the end."""

    def as_json(self) -> dict[str, Any]:
        """Return the report as an object of JSON."""
        return asdict(self)


class RunObserver(Protocol):
    """Is told where a run is; in the first process only."""

    def stepped(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        """Take note of an optimiser step, with everything that was logged of it."""
        ...

    def measured(self, step: int, rewards: Mapping[str, float]) -> None:
        """Take note of the mean rewards of answers to held-out prompts."""
        ...

    def noted(self, text: str) -> None:
        """Take note of what people should know of the run, such as which normalisation runs."""
        ...


def is_first_process() -> bool:
    """Return whether this process is the one that tells people of a run."""
    from accelerate import PartialState

    return PartialState().is_main_process


def align(run: AlignRun, source: RewardSource, observer: RunObserver | None = None) -> AlignReport:
    """Do a run, or return the report of one that is done.

    Args:
        run: What is to be done.
        source: Of the rewards; never asked, not even for its version, by a run that needs none: of
            MAPL that logs none, of MODPO that logs none and has all margins from adapters.
        observer: Is told of steps and evaluations.

    Raises:
        SteerwardError: If files and settings do not fit, the folder holds another run, or the
            rewards do not come.
    """
    _check_margins(run)
    if not _needs_rewards(run):
        source = _no_rewards
    if run.report.is_file():
        return _finished(run, source)
    if isinstance(run.settings, ModpoSettings):
        from steerward.training.align.pairwise import PairwiseRun

        return PairwiseRun(run, source, observer).run()
    if isinstance(run.settings, MaplSettings):
        from steerward.training.align.instructed import InstructedRun

        return InstructedRun(run, source, observer).run()
    from steerward.training.align.online import OnlineRun

    return OnlineRun(run, source, observer).run()


def _check_margins(run: AlignRun) -> None:
    """Refuse adapters that the run has no use for, or that are not what they should be."""
    if isinstance(run.settings, ModpoSettings):
        check_adapters(run.margin_adapters, margins=run.settings.margins, base=run.base)
    elif run.margin_adapters:
        raise InvalidRequest(
            f"margins from adapters are of MODPO, and this is a run of {run.method}; leave "
            "margin_adapters out",
            param="margin_adapters",
        )
    if run.margin_beta is not None and not (run.margin_adapters and run.margin_beta > 0):
        raise InvalidRequest(
            f"margin_beta {run.margin_beta:g} is that of {len(run.margin_adapters)} adapters; give "
            "a number above 0 with margin_adapters, or leave it out",
            param="margin_beta",
        )


def _needs_rewards(run: AlignRun) -> bool:
    settings = run.settings
    if isinstance(settings, ModpoSettings):
        return bool(settings.logged) or not set(settings.margins) <= set(run.margin_adapters)
    return not isinstance(settings, MaplSettings) or bool(settings.logged)


def _no_rewards(names: Sequence[str]) -> Sequence[RewardFunction]:
    assert not names
    return []


def _without_keys(value: Any) -> Any:
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        return {
            name: "***" if name == "api_key" and one else _without_keys(one)
            for name, one in fields.items()
        }
    if isinstance(value, list):
        return [_without_keys(one) for one in cast("list[Any]", value)]
    return value


def _finished(run: AlignRun, source: RewardSource) -> AlignReport:
    """Return the report of a run that is done, if it is this one."""
    found = AlignReport(**json.loads(run.report.read_text(encoding="utf-8")))
    identity = read_settings(run.out).model_extra or {}
    if identity.get("identity") != run.identity(getattr(source, "version", None)):
        raise InvalidRequest(
            f"{run.out} holds a finished run with other rows, policy, rewards or settings; give "
            "another folder, or delete it"
        )
    # Of a run that was killed at its very end.
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    return found
