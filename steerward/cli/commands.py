"""The commands and what each of them needs."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from dataclasses import dataclass

from steerward.cli import align_settings, job_settings
from steerward.cli.evaluation_settings import BenchmarkConfig
from steerward.cli.options import add_options, read_options
from steerward.cli.rsf_settings import RsfConfig
from steerward.config import ScoreFileConfig, ServeConfig, Settings
from steerward.protocol.errors import SteerwardError
from steerward.training import config as training
from steerward.training.align.mapl.settings import MaplConfig
from steerward.training.align.multilabel.settings import MultiLabelConfig


@dataclass(frozen=True, slots=True)
class Command:
    """One command of the program, or a group of them.

    Args:
        name: On the command line.
        summary: One line for the list of commands.
        schema: Its settings.
        target: ``module:function`` that takes the settings; imported when the command runs.
        extra: Extra of the package that the module needs.
        children: Commands below this one, in place of schema and target.
    """

    name: str
    summary: str
    schema: type[Settings] | None = None
    target: str = ""
    extra: str = "server"
    children: Sequence[Command] = ()

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Give the parser this command's options and what to do with them."""
        schema = self.schema
        assert schema is not None
        add_options(parser, schema)

        def run(parsed: argparse.Namespace) -> int:
            return self._call(read_options(parser, schema, parsed)) or 0

        parser.set_defaults(run=run)

    def _call(self, settings: Settings) -> int | None:
        module, _, function = self.target.partition(":")
        try:
            return getattr(importlib.import_module(module), function)(settings)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package == "steerward":
                raise
            raise SteerwardError(
                f"`steerward {self.name}` needs {package!r}, which is not installed; run: "
                f"pip install 'steerward[{self.extra}]'"
            ) from error


def _training(name: str, summary: str, schema: type[Settings]) -> Command:
    return Command(name, summary, schema, f"steerward.cli.training:run_{name}", extra="train")


def _job(name: str, summary: str, schema: type[Settings]) -> Command:
    return Command(name, summary, schema, f"steerward.cli.jobs:run_{name}")


def _aligning(name: str, summary: str, schema: type[Settings]) -> Command:
    return Command(name, summary, schema, f"steerward.cli.align:run_{name}", extra="jobs")


def _file(name: str, summary: str, schema: type[Settings]) -> Command:
    return Command(name, summary, schema, f"steerward.cli.files:run_{name}")


_JOBS = Command(
    "jobs",
    "fine-tune a policy of a running server, and watch it",
    children=(
        _job("create", "start a job from a file of prompts", job_settings.JobCreateConfig),
        _job("list", "list jobs, newest first", job_settings.JobListConfig),
        _job("show", "show a job and all its settings", job_settings.JobShowConfig),
        _job("watch", "watch a job until it ends", job_settings.JobWatchConfig),
        _job("events", "print what happened to a job", job_settings.JobEventsConfig),
        _job("pause", "stop a job where it can go on", job_settings.JobPauseConfig),
        _job("resume", "let a paused job go on", job_settings.JobResumeConfig),
        _job("cancel", "end a job for good", job_settings.JobCancelConfig),
        Command(
            "samples",
            "download every sample of a job",
            job_settings.JobSamplesConfig,
            "steerward.cli.job_samples:run_samples",
            extra="jobs",
        ),
        _job("checkpoints", "list the weights it led to", job_settings.JobCheckpointsConfig),
    ),
)

_ALIGN = Command(
    "align",
    "align a policy to several objectives at once",
    children=(
        _aligning("grpo", "GRPO on named objectives", align_settings.GrpoConfig),
        _aligning("pama", "as far as the worst objective allows", align_settings.PamaConfig),
        _aligning("cgpo", "a reward that counts where all judges pass", align_settings.CgpoConfig),
        _aligning("modpo", "DPO, other objectives as margins", align_settings.ModpoConfig),
        _aligning("mapl", "DPO, with instructions to follow", align_settings.MaplPolicyConfig),
        Command(
            "rsf",
            "rejection sampling under preference directions",
            RsfConfig,
            "steerward.cli.rsf:run_rsf",
            extra="jobs",
        ),
        _aligning("report", "draw runs side by side", align_settings.ReportConfig),
    ),
)

_FILES = Command(
    "files",
    "upload, list and delete files for fine-tuning",
    children=(
        _file("list", "list files, newest first", job_settings.FileListConfig),
        _file("upload", "upload a file and print its id", job_settings.FileUploadConfig),
        _file("delete", "delete a file", job_settings.FileDeleteConfig),
    ),
)

COMMANDS: Sequence[Command] = (
    Command(
        "serve",
        "serve reward models and policies over HTTP",
        ServeConfig,
        "steerward.cli.serving:run_serve",
    ),
    Command(
        "score",
        "score a JSON-lines file without a server",
        ScoreFileConfig,
        "steerward.cli.serving:run_score",
    ),
    Command(
        "evaluate",
        "measure a reward model on a published benchmark",
        BenchmarkConfig,
        "steerward.cli.evaluation:run_evaluate",
    ),
    Command(
        "train",
        "train and measure a reward model, step by step",
        children=(
            _training("backbone", "train a small causal backbone", training.BackboneConfig),
            _training(
                "embed", "compute the vectors of rating and pair files", training.EmbedConfig
            ),
            _training("heads", "fit a ridge head an objective", training.HeadsConfig),
            _training("gating", "fit the transform and train the gate", training.GatingConfig),
            _training("package", "put the parts into one checkpoint", training.PackageConfig),
            _training("multilabel", "regress several labels at once", MultiLabelConfig),
            Command(
                "mapl",
                "teach a reward model to follow instructions",
                MaplConfig,
                "steerward.cli.training:run_mapl",
                extra="jobs",
            ),
            _training(
                "evaluate", "measure a checkpoint against baselines", training.EvaluateConfig
            ),
        ),
    ),
    _ALIGN,
    _JOBS,
    Command(
        "rsf",
        "run a fine-tuning loop here, with the models of a server",
        RsfConfig,
        "steerward.cli.rsf:run_rsf",
        extra="jobs",
    ),
    _FILES,
)
