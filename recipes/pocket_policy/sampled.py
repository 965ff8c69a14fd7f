"""Fourth step: answers of the policy's own, several to a prompt, teach what a direction changes.

The text has one answer to a prompt, so it tells little of what a direction changes in it. Samples
of one prompt, scored side by side, tell just that.

Axis legend: N samples of a prompt, V directions, M objectives.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm.asyncio import tqdm
from transformers import PreTrainedTokenizerFast

from recipes.pocket_policy.conversations import Conversation
from recipes.pocket_policy.directed import (
    STRENGTH,
    Example,
    directions_and_systems,
    encode_example,
)
from recipes.pocket_policy.language import POSITIONS
from recipes.pocket_policy.rule import RULE
from steerward.config import ScoreFileConfig
from steerward.engine.bulk import score_file
from steerward.engine.bulk_output import state_path
from steerward.policy.generation import GenerationRequest, Prompt, Sampling
from steerward.policy.local.checkpoint import load_policy
from steerward.policy.local.policy import LocalPolicy
from steerward.training.conditioning import standardised, tilted_shares

SAMPLES = 8
_MAX_TOKENS = 96
_AT_ONCE = 16
_HOUR_S = 3600.0


def sample_and_score(
    checkpoint: Path,
    conversations: Sequence[Conversation],
    *,
    work: Path,
    num_prompts: int,
    seed: int,
) -> Path:
    """Draw answers to the opening turns of conversations in all directions, and score them.

    Returns:
        The file of the rewards; `samples.jsonl` beside it has the answers.
    """
    source, target = work / "samples.jsonl", work / "sample-rewards.jsonl"
    if not source.exists():
        openings = sorted({found.messages[0]["content"] for found in conversations})
        chosen = random.Random(seed).sample(openings, min(num_prompts, len(openings)))
        items = asyncio.run(_draw(checkpoint, chosen, seed=seed))
        building = source.with_suffix(".building")
        building.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
        building.rename(source)
    if not target.exists() or state_path(target).exists():
        asyncio.run(score_file(ScoreFileConfig(source=source, target=target, dtype="int8")))
    return target


async def _draw(checkpoint: Path, prompts: Sequence[str], *, seed: int) -> list[dict[str, object]]:
    policy = LocalPolicy(
        load_policy(str(checkpoint)),
        name=checkpoint.name,
        max_running=64,
        max_waiting=1024,
        cache_bytes=1 << 30,
    )
    policy.start()
    await policy.wait_until_ready()
    free = asyncio.Semaphore(_AT_ONCE)
    _, systems = directions_and_systems()

    async def answers(number: int, prompt: str) -> dict[str, object]:
        order = random.Random(f"{seed}/{number}")
        turn = {"role": "user", "content": prompt}
        asked = [
            Prompt(({"role": "system", "content": order.choice(systems)}, turn))
            for _ in range(SAMPLES)
        ]
        sampling = Sampling(max_tokens=_MAX_TOKENS, temperature=1.0, top_p=0.95, seed=number)
        found = [""] * SAMPLES
        async with free:
            request = GenerationRequest(asked, sampling, time.perf_counter() + _HOUR_S)
            async for piece in await policy.begin(request):
                found[piece.index] += piece.text
        return {"prompt": prompt, "candidates": found}

    try:
        working = [answers(number, prompt) for number, prompt in enumerate(prompts)]
        return list(await tqdm.gather(*working, desc="sampling", mininterval=5.0))
    finally:
        policy.close()


def examples_of_samples(
    work: Path, tokenizer: PreTrainedTokenizerFast, *, count: int, seed: int
) -> list[Example]:
    """Return examples: directions by turns, each with a prompt and one of its samples."""
    with (work / "samples.jsonl").open(encoding="utf-8") as file:
        items = [json.loads(line) for line in file]
    with (work / "sample-rewards.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    vectors, systems = directions_and_systems()
    numbers = np.random.default_rng(seed)
    examples: list[Example] = []
    while len(examples) < count:
        for v, system in enumerate(systems):
            place = int(numbers.integers(len(items)))
            if "error" in rows[place]:
                continue
            rewards_NM = np.array(
                [
                    [found["rewards"][name] for name in RULE.objectives]
                    for found in rows[place]["candidates"]
                ]
            )
            if not (rewards_NM.std(axis=0) > 0).all():
                continue  # All samples are the same: they tell nothing.
            shares_VN = tilted_shares(
                standardised(rewards_NM), vectors[v : v + 1], strength=STRENGTH
            )
            chosen = items[place]["candidates"][numbers.choice(len(rewards_NM), p=shares_VN[0])]
            turns = [
                {"role": "system", "content": system},
                {"role": "user", "content": items[place]["prompt"]},
            ]
            example = encode_example(tokenizer, turns, chosen)
            if chosen.strip() and len(example[0]) <= POSITIONS:
                examples.append(example)
    return examples[:count]
