"""Draws completions and scores them, prompt by prompt, and keeps them block by block.

Each prompt has a seed of its own, so what is drawn for it does not depend on when it is drawn: a
job that goes on after a kill draws what is missing, and it is what it would have been.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from steerward.jobs.rsf.clock import Clock
from steerward.jobs.rsf.draw import Pick
from steerward.jobs.rsf.patience import Patience
from steerward.jobs.rsf.ports import Generated, Generator, RewardModel, Sampling, Scored, Turns
from steerward.jobs.rsf.samples import SampleRow, write_samples
from steerward.jobs.rsf.selection import reference_score
from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.errors import InputTooLong, InvalidRequest, NonFiniteScore, SteerwardError

# Prompts whose samples are kept together: what a kill can cost.
BLOCK = 16
SAMPLING, SCORING = "sampling", "scoring"
# Errors that lie with a prompt, and not with who was asked.
_OF_THE_PROMPT = (InputTooLong, InvalidRequest, NonFiniteScore)


@dataclass(frozen=True, slots=True)
class Drawing:
    """What is to be drawn."""

    job_id: str
    iteration: int
    picks: Sequence[Pick]
    prompts: Sequence[Turns]
    """Of the file; picks name their places."""
    directions: Sequence[PreferenceDirection]
    """In the policy's names; picks name their places."""
    num: int
    """Completions for each prompt and direction."""
    sampling: Sampling
    """Its seed is each pick's own."""


class Sampler:
    """Draws and scores with a policy and a reward model.

    Args:
        generator: The policy.
        reward_model: Scores.
        patience: With both.
        clock: Is told when each of them works.
        concurrency: Prompts at the same time.
        on_prompt: Called with prompts done and in all, and the tokens drawn for the last.
        on_left_out: Called with a prompt's place in the file and the reason.
    """

    def __init__(
        self,
        generator: Generator,
        reward_model: RewardModel,
        *,
        patience: Patience,
        clock: Clock,
        concurrency: int,
        on_prompt: Callable[[int, int, int], None],
        on_left_out: Callable[[int, SteerwardError], None],
    ) -> None:
        self._generator = generator
        self._reward_model = reward_model
        self._patience = patience
        self._clock = clock
        self._concurrency = concurrency
        self._on_prompt = on_prompt
        self._on_left_out = on_left_out

    async def draw(self, drawing: Drawing, folder: Path) -> None:
        """Fill a folder with a file for each block of picks; files that are there stay.

        Raises:
            SteerwardError: If the policy or the reward model cannot go on.
        """
        folder.mkdir(exist_ok=True)
        self._patience.begin()
        free = asyncio.Semaphore(self._concurrency)
        done = 0

        async def block(number: int, picks: Sequence[Pick]) -> None:
            nonlocal done
            path = folder / f"block-{number:05d}.parquet"
            if path.exists():
                done += len(picks)
                return
            rows: list[SampleRow] = []

            async def one(pick: Pick) -> list[SampleRow]:
                nonlocal done
                async with free:
                    found, tokens = await self._prompt(drawing, pick)
                done += 1
                self._on_prompt(done, len(drawing.picks), tokens)
                return found

            async with asyncio.TaskGroup() as group:
                working = [group.create_task(one(pick)) for pick in picks]
            for task in working:
                rows += task.result()
            await asyncio.to_thread(write_samples, path, rows)

        try:
            async with asyncio.TaskGroup() as group:
                for number, begin in enumerate(range(0, len(drawing.picks), BLOCK)):
                    group.create_task(block(number, drawing.picks[begin : begin + BLOCK]))
        except* SteerwardError as errors:
            raise _first(errors) from None
        except* OSError as errors:
            raise _first(errors) from None

    async def _prompt(self, drawing: Drawing, pick: Pick) -> tuple[list[SampleRow], int]:
        """Return the scored samples of one prompt under all of its directions, and their tokens."""
        prompt = drawing.prompts[pick.prompt]
        try:
            generated = await asyncio.gather(
                *(self._generate(drawing, pick, prompt, place) for place in pick.directions)
            )
            texts = [one.text for found in generated for one in found.completions]
            scored = await self._patience.call(lambda: self._score(prompt, texts))
        except _OF_THE_PROMPT as error:
            self._on_left_out(pick.prompt, error)
            return [], 0
        tokens = sum(found.tokens for found in generated)
        return self._rows(drawing, pick, generated, scored), tokens

    async def _generate(self, drawing: Drawing, pick: Pick, prompt: Turns, place: int) -> Generated:
        sampling = drawing.sampling
        seeded = Sampling(
            sampling.temperature, sampling.top_p, sampling.max_tokens, seed_of(pick, place)
        )

        async def generate() -> Generated:
            with self._clock.on(SAMPLING):
                return await self._generator.generate(
                    prompt,
                    direction=drawing.directions[place],
                    num=drawing.num,
                    sampling=seeded,
                )

        return await self._patience.call(generate)

    async def _score(self, prompt: Turns, texts: Sequence[str]) -> Scored:
        with self._clock.on(SCORING):
            return await self._reward_model.score(prompt, texts)

    def _rows(
        self, drawing: Drawing, pick: Pick, generated: Sequence[Generated], scored: Scored
    ) -> list[SampleRow]:
        rule, reference = self._generator.rule, self._reward_model.reference
        rows: list[SampleRow] = []
        for place, found in zip(pick.directions, generated, strict=True):
            direction = drawing.directions[place]
            vector = rule.reward_direction(direction).components
            for sample, completion in enumerate(found.completions):
                rewards = scored.rewards[len(rows)]
                rows.append(
                    SampleRow(
                        job_id=drawing.job_id,
                        iteration=drawing.iteration,
                        number=pick.number,
                        prompt_row=pick.prompt,
                        direction_index=place,
                        direction=dict(direction.components),
                        sample=sample,
                        sample_seed=seed_of(pick, place),
                        prompt=tuple(dict(turn) for turn in drawing.prompts[pick.prompt]),
                        completion=completion.text,
                        tokens=completion.tokens,
                        is_finished=completion.is_finished,
                        rewards=dict(rewards),
                        score=scored.scores[len(rows)],
                        direction_score=reference_score(rewards, vector, reference),
                        policy_weight_version=found.weight_version,
                        reward_model=self._reward_model.name,
                        reward_weight_version=scored.weight_version,
                    )
                )
        return rows


def mean_rewards(rows: Sequence[SampleRow], names: Sequence[str]) -> dict[str, float]:
    """Return the mean reward of samples by objective."""
    if not rows:
        return {}
    return {name: sum(row.rewards[name] for row in rows) / len(rows) for name in names}


def seed_of(pick: Pick, direction: int) -> int:
    """Return the seed of a prompt under one of its directions."""
    digest = hashlib.sha256(f"{pick.seed}/{direction}".encode()).digest()
    return int.from_bytes(digest[:4]) >> 1


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error of groups within groups."""
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
