"""``python -m recipes.pocket``: from preference data to the model that ships, in one command."""

from __future__ import annotations

import argparse
from pathlib import Path

from pydantic import Field

from recipes.pocket.card import write_card
from recipes.pocket.ship import ship
from recipes.pocket.steps import Run, measure, train
from steerward import logs
from steerward.cli.options import add_options, read_options
from steerward.config import Settings
from steerward.models.source import POCKET

# Left out together in the second run: preferences of kinds that other sources have too.
LEFT_OUT = ("hh_harmless", "pandalm", "open_instruct_human", "oasst_sample")


class PocketConfig(Settings):
    """Train pocket, the reward model that ships with the package, and write its model card.

    A second, shorter run leaves some sources out and is measured on them alone. A run that was
    stopped goes on where it stopped.

    Examples:
      python -m recipes.pocket --data data --ship
    """

    data: Path
    """Folder with ratings/*.jsonl.gz and pairs/*.jsonl.gz."""
    work: Path = Path("build/pocket")
    """Folder for everything on the way; a stopped run goes on from it."""
    steps: int = Field(default=2200, ge=1)
    """Optimiser steps of the backbone: about 2 seconds each on 2 cores."""
    unseen_steps: int = Field(default=200, ge=0)
    """Optimiser steps of the run with sources left out; 0 leaves that run out."""
    seed: int = 0
    """Of everything."""
    ship: bool = False
    """Replace the model inside the package by the new one."""


def main() -> None:
    """Train, measure, write the card."""
    parser = argparse.ArgumentParser(prog="python -m recipes.pocket")
    add_options(parser, PocketConfig)
    config = read_options(parser, PocketConfig, parser.parse_args())
    logs.set_up("warning", "text")
    whole = Run(config.data, config.work, config.steps, config.seed)
    train(whole)
    measure(whole)
    partial = None
    if config.unseen_steps:
        partial = Run(
            config.data,
            config.work / "unseen",
            config.unseen_steps,
            config.seed,
            left_out=LEFT_OUT,
            max_rows=300,
        )
        train(partial)
        measure(partial)
    write_card(whole, partial)
    if config.ship:
        ship(whole.checkpoint, POCKET)


if __name__ == "__main__":
    main()
