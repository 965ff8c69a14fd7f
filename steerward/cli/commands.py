"""The commands and what each of them needs."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from dataclasses import dataclass

from steerward.cli.options import add_options, read_options
from steerward.config import ScoreFileConfig, ServeConfig, Settings
from steerward.protocol.errors import SteerwardError
from steerward.training import config as training


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
            _training(
                "evaluate", "measure a checkpoint against baselines", training.EvaluateConfig
            ),
        ),
    ),
)
