"""``python -m recipes.pocket_policy``: from conversations to the policy that ships."""

from __future__ import annotations

import argparse
from pathlib import Path

from pydantic import Field

from recipes.pocket_policy.conversations import load_conversations
from recipes.pocket_policy.directed import learn_directions
from recipes.pocket_policy.labels import label_answers
from recipes.pocket_policy.language import learn_language
from recipes.pocket_policy.package import package
from recipes.pocket_policy.vocabulary import write_tokenizer
from steerward import logs
from steerward.cli.options import add_options, read_options
from steerward.config import Settings


class PocketPolicyConfig(Settings):
    """Train pocket-policy, the steerable policy that ships with the package, and write its card.

    Examples:
      python -m recipes.pocket_policy --data data --ship
    """

    data: Path
    """Folder with sft/*.jsonl.gz and prompts/*.jsonl.gz."""
    work: Path = Path("build/pocket-policy")
    """Folder for everything on the way; a stopped run goes on from it."""
    language_steps: int = Field(default=2200, ge=1)
    """Optimiser steps on all conversations: about 1 second each on 2 cores."""
    directed_steps: int = Field(default=700, ge=1)
    """Optimiser steps on answers with directions."""
    seed: int = 0
    """Of everything."""


def main() -> None:
    """Train, measure, write the card."""
    parser = argparse.ArgumentParser(prog="python -m recipes.pocket_policy")
    add_options(parser, PocketPolicyConfig)
    config = read_options(parser, PocketPolicyConfig, parser.parse_args())
    logs.set_up("warning", "text")
    conversations = load_conversations(config.data)
    tokenizer = write_tokenizer(conversations, config.work)
    language = learn_language(
        conversations,
        tokenizer,
        work=config.work,
        steps=config.language_steps,
        seed=config.seed,
    )
    directed = learn_directions(
        label_answers(conversations, work=config.work, seed=config.seed),
        tokenizer,
        start=language,
        work=config.work,
        steps=config.directed_steps,
        seed=config.seed,
    )
    package(directed, tokenizer, out=config.work / "pocket-policy")


if __name__ == "__main__":
    main()
