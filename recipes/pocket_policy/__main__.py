"""``python -m recipes.pocket_policy``: from conversations to the policy that ships."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from pydantic import Field
from safetensors import safe_open
from transformers import PreTrainedTokenizerFast

from benchmarks.command import print_table
from benchmarks.rsf_front import Setting as RsfSetting
from benchmarks.rsf_front import run as rsf_front
from benchmarks.steering_front import Setting as SteeringSetting
from benchmarks.steering_front import run as steering_front
from recipes.pocket.ship import ship
from recipes.pocket_policy.card import PICTURE, write_card
from recipes.pocket_policy.contrasted import learn_contrasts
from recipes.pocket_policy.conversations import load_conversations
from recipes.pocket_policy.directed import EXAMPLES_PER_STEP, draw_examples, learn_examples
from recipes.pocket_policy.held_out import held_out_perplexity
from recipes.pocket_policy.labels import label_answers
from recipes.pocket_policy.language import LEARNING_RATE, learn_language
from recipes.pocket_policy.package import package
from recipes.pocket_policy.preferred import last_samples, loop_folder, prefer
from recipes.pocket_policy.sampled import examples_of_samples, sample_and_score
from recipes.pocket_policy.vocabulary import write_tokenizer
from steerward import logs
from steerward.cli.options import add_options, read_options
from steerward.config import Settings
from steerward.models.source import POCKET_POLICY, weight_version


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
    sampled_prompts: int = Field(default=1500, ge=1)
    """Prompts that the policy itself answers, in all directions, to learn what they change."""
    seed: int = 0
    """Of everything."""
    loop: bool = True
    """Go on with rejection-sampling fine-tuning and with what directions change in its samples:
    about 40 minutes on 2 cores."""
    ship: bool = False
    """Replace the policy inside the package by the new one."""


def main() -> None:
    """Train, measure, write the card."""
    parser = argparse.ArgumentParser(prog="python -m recipes.pocket_policy")
    add_options(parser, PocketPolicyConfig)
    config = read_options(parser, PocketPolicyConfig, parser.parse_args())
    logs.set_up("warning", "text")
    _check_work(config)
    conversations = load_conversations(config.data)
    tokenizer = write_tokenizer(conversations, config.work)
    language = learn_language(
        conversations,
        tokenizer,
        work=config.work,
        steps=config.language_steps,
        seed=config.seed,
    )
    count = config.directed_steps * EXAMPLES_PER_STEP
    answers = label_answers(conversations, work=config.work, seed=config.seed)
    text = draw_examples(answers, tokenizer, count=count, seed=config.seed)
    directed = learn_examples(
        text,
        tokenizer,
        start=language,
        out=config.work / "directed",
        learning_rate=LEARNING_RATE,
        seed=config.seed,
    )
    sample_and_score(
        package(directed, tokenizer, out=config.work / "before-samples"),
        conversations,
        work=config.work,
        num_prompts=config.sampled_prompts,
        seed=config.seed,
    )
    own = examples_of_samples(config.work, tokenizer, count=count // 2, seed=config.seed)
    directed = learn_examples(
        # Some of the text stays, so that the policy does not only hear itself.
        [*own, *text[: count // 4]],
        tokenizer,
        start=directed,
        out=config.work / "sampled",
        learning_rate=LEARNING_RATE / 2,
        seed=config.seed,
    )
    if config.loop:
        preferred = prefer(
            package(directed, tokenizer, out=config.work / "before-rsf"),
            conversations,
            answers,
            prompts=str(config.data / "prompts" / "prompts.jsonl.gz"),
            work=config.work,
            seed=config.seed,
        )
        directed = learn_contrasts(
            last_samples(config.work),
            tokenizer,
            start=preferred,
            work=config.work,
            seed=config.seed,
        )
    checkpoint = package(directed, tokenizer, out=config.work / "pocket-policy")
    measure(config, checkpoint, tokenizer)
    if config.ship:
        ship(checkpoint, POCKET_POLICY)


def _check_work(config: PocketPolicyConfig) -> None:
    """Refuse a folder whose parts were made with other settings."""
    settings = config.model_dump_json(exclude={"data", "work", "ship", "loop"})
    path = config.work / "settings.json"
    if path.exists() and path.read_text(encoding="utf-8") != settings:
        raise SystemExit(
            f"{config.work} was made with {path.read_text(encoding='utf-8')}, now it is "
            f"{settings}; give another --work"
        )
    config.work.mkdir(parents=True, exist_ok=True)
    path.write_text(settings, encoding="utf-8")


def measure(
    config: PocketPolicyConfig, checkpoint: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Measure what directions do, and write the card."""
    front = SteeringSetting(
        prompts=str(config.data / "prompts" / "prompts.jsonl.gz"),
        policy=str(checkpoint),
        seed=config.seed,
        plot=str(checkpoint / PICTURE),
    )
    card = {
        "weight_version": weight_version(checkpoint),
        "parameters": _num_parameters(checkpoint),
        "command": "python -m benchmarks.steering_front --prompts DATA/prompts/prompts.jsonl.gz",
        "front": steering_front(front, config.work),
        "held_out": held_out_perplexity(
            checkpoint, tokenizer, load_conversations(config.data, split="test")
        ),
        "language_steps": config.language_steps,
        "directed_steps": config.directed_steps,
        "sampled_prompts": config.sampled_prompts,
        "seed": config.seed,
    }
    if config.loop:
        card["rsf"] = rsf_front(RsfSetting(job=str(loop_folder(config.work))), config.work)
    for one in card["front"]["tables"]:
        print_table(one)
    write_card(checkpoint, card)


def _num_parameters(checkpoint: Path) -> int:
    with safe_open(checkpoint / "model.safetensors", framework="pt") as file:
        return sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118


if __name__ == "__main__":
    main()
