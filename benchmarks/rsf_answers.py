"""Answers of a policy as it was after each iteration of a job, under the same directions.

Either those that the job was measured by, from its folder, or new ones to prompts that the job
never saw, from a server that loads the policy of one iteration after the other.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.served import Process
from steerward.jobs.rsf.samples import SampleRow, read_samples
from steerward.models.source import resolve_source
from steerward.protocol.conditioning import ConditioningRule
from steerward.protocol.directions import PreferenceDirection

_VARIANT = "iteration"
_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer to one prompt under one direction."""

    place: int
    """Of the prompt."""
    angle: float
    """Of the direction, in degrees from the first objective towards the second."""
    prompt: str
    text: str
    rewards: Mapping[str, float]
    direction_score: float
    score: float | None
    """The reward model's own."""


@dataclass(frozen=True, slots=True)
class Asking:
    """How new answers are asked for."""

    policy: str
    reward_model: str
    angles: Sequence[float]
    temperature: float
    max_tokens: int
    clients: int
    seed: int


def rule_of(policy: str) -> ConditioningRule:
    """Return how a policy reads directions.

    Raises:
        SystemExit: If they are not of two objectives.
    """
    path = resolve_source(policy) / "conditioning.json"
    rule = ConditioningRule.model_validate_json(path.read_text())
    if len(rule.objectives) != 2:
        raise SystemExit(f"a front has two objectives, and {policy} has {rule.objectives}")
    return rule


def kept_answers(job: Path, rule: ConditioningRule) -> dict[int, list[Answer]]:
    """Return the answers that a job was measured by, by iteration.

    Raises:
        SystemExit: If the folder has none.
    """
    found = {
        int(path.parent.name.rpartition("-")[2]): [
            _from_row(row, rule) for row in read_samples(path)
        ]
        for path in sorted(job.glob("iteration-*/evaluation.parquet"))
    }
    if not found:
        raise SystemExit(f"{job} has no iteration-*/evaluation.parquet; give --job FOLDER")
    return found


def _from_row(row: SampleRow, rule: ConditioningRule) -> Answer:
    direction = PreferenceDirection.from_mapping(row.direction)
    return Answer(
        place=row.number,
        # Directions are at even angles; their cosines are rounded.
        angle=round(rule.angle_deg(direction), 3),
        prompt=row.prompt[-1]["content"],
        text=row.completion,
        rewards=row.rewards,
        direction_score=row.direction_score,
        score=row.score,
    )


def new_answers(job: Path, prompts: Sequence[str], asking: Asking) -> dict[int, list[Answer]]:
    """Return answers to other prompts, by iteration; the same seeds are used for each."""
    folders = {
        int(path.parent.name.rpartition("-")[2]): path
        for path in sorted(job.glob("iteration-*/policy"))
    }
    command = [sys.executable, "-m", "steerward", "serve", "--port", "0", "--device", "cpu"]
    command += ["--policy", asking.policy, "--policy-name", "start"]
    command += ["--reward-model", asking.reward_model, "--weights-dir", str(job.resolve())]
    command += ["--max-running-completions", "64", "--max-waiting-completions", "4096"]
    process = Process(command, variables={})
    try:
        found = {0: asyncio.run(_ask_all(process.url, "start", prompts, asking))}
        for iteration, folder in folders.items():
            body = {"id": _VARIANT, "path": str(folder.resolve())}
            loaded = httpx.post(f"{process.url}/v1/models", json=body, timeout=_TIMEOUT_S)
            if loaded.status_code != 200:
                raise RuntimeError(loaded.text)
            found[iteration] = asyncio.run(_ask_all(process.url, _VARIANT, prompts, asking))
            print(f"iteration {iteration} answered", file=sys.stderr)
    finally:
        process.stop()
    return found


async def _ask_all(url: str, model: str, prompts: Sequence[str], asking: Asking) -> list[Answer]:
    free = asyncio.Semaphore(asking.clients)
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S) as client:

        async def ask(place: int, prompt: str, angle: float) -> Answer:
            body = {
                "model": model,
                "messages": [{"role": "user", "content": prompt}],
                "max_completion_tokens": asking.max_tokens,
                "temperature": asking.temperature,
                "top_p": 1.0,
                "seed": asking.seed + place,
                "steering": "prompt",
                "angle": angle,
            }
            async with free:
                response = await client.post("/v1/chat/completions", json=body)
            if response.status_code != 200:
                raise RuntimeError(response.text)
            (choice,) = response.json()["choices"]
            return _from_choice(choice, place=place, angle=angle, prompt=prompt)

        asked = (
            ask(place, prompt, angle)
            for angle in asking.angles
            for place, prompt in enumerate(prompts)
        )
        return list(await asyncio.gather(*asked))


def _from_choice(choice: Mapping[str, Any], **known: Any) -> Answer:
    reward = choice["reward"]
    return Answer(
        text=choice["message"]["content"],
        rewards=reward["rewards"],
        direction_score=reward["direction_score"],
        score=reward["score"],
        **known,
    )


def paired(answers: Mapping[int, Sequence[Answer]]) -> tuple[list[float], dict[int, Any]]:
    """Return the angles, and by iteration a row of answers for each prompt, in their order.

    A prompt that was not answered under each direction in each iteration is left out.

    Raises:
        SystemExit: If none is left.
    """
    angles = sorted({one.angle for found in answers.values() for one in found})
    by_place = {
        iteration: {(one.place, one.angle): one for one in found}
        for iteration, found in answers.items()
    }
    places = sorted({one.place for found in answers.values() for one in found})
    whole = [
        place
        for place in places
        if all((place, angle) in found for found in by_place.values() for angle in angles)
    ]
    if not whole:
        raise SystemExit("no prompt was answered under the same directions in each iteration")
    return angles, {
        iteration: [[found[place, angle] for angle in angles] for place in whole]
        for iteration, found in by_place.items()
    }
