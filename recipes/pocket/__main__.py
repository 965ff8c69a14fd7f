"""``python -m recipes.pocket``: from preference data to the model that ships, in one command."""

from __future__ import annotations

import argparse

from recipes.pocket.steps import PocketConfig, measure, run
from steerward import logs
from steerward.cli.options import add_options, read_options


def main() -> None:
    """Train, package and measure."""
    parser = argparse.ArgumentParser(prog="python -m recipes.pocket")
    add_options(parser, PocketConfig)
    config = read_options(parser, PocketConfig, parser.parse_args())
    logs.set_up("warning", "text")
    measure(config, run(config))


if __name__ == "__main__":
    main()
