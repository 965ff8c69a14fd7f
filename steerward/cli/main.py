"""``steerward``: one program, a command for each thing it does."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import steerward
from steerward.cli.commands import COMMANDS, Command
from steerward.protocol.errors import SteerwardError

_EPILOG = """
First steps:
  steerward serve                         serve the models that ship with the package
  steerward score in.jsonl out.jsonl      score a file without a server
  steerward jobs create prompts.jsonl     fine-tune a policy of the running server
  steerward COMMAND --help                what a command does, with examples
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status: 0 done, 1 failed, 2 misused."""
    parser = argparse.ArgumentParser(
        prog="steerward",
        description="Reward-model server that explains its scores, and steers what it generates.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"steerward {steerward.__version__}")
    _add_commands(parser, COMMANDS)
    parsed = parser.parse_args(arguments)
    try:
        return parsed.run(parsed)
    except SteerwardError as error:
        print(f"steerward: {error.message}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _add_commands(parser: argparse.ArgumentParser, commands: Sequence[Command]) -> None:
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in commands:
        child = subparsers.add_parser(command.name, help=command.summary)
        if command.children:
            child.description = command.summary
            _add_commands(child, command.children)
        else:
            command.configure(child)
