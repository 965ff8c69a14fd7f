"""Draws completions and scores them, prompt by prompt, and keeps them block by block.

Each prompt has a seed of its own, so what is drawn for it does not depend on when it is drawn: a
job that goes on after a kill draws what is missing, and it is what it would have been.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from steerward.jobs.rsf.blocks import Block, Blocks, Drawn
from steerward.jobs.rsf.clock import Clock
from steerward.jobs.rsf.draw import Pick
from steerward.jobs.rsf.patience import Patience
from steerward.jobs.rsf.ports import Generated, Generator, RewardModel, Sampling, Scored, Turns
from steerward.jobs.rsf.samples import SampleRow
from steerward.jobs.rsf.selection import reference_score
from steerward.jobs.threads import in_thread
from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.errors import InputTooLong, InvalidRequest, NonFiniteScore, SteerwardError

# Prompts whose samples are kept together: what a kill can cost.
BLOCK = 16
SAMPLING, SCORING = "sampling", "scoring"
# Completions in one scoring call: a reward model takes a limited number at once.
_MOST_SCORED = 256
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

    async def draw(self, drawing: Drawing, folder: Path) -> Drawn:
        """Fill a folder with a file for each block of picks; blocks that are there stay.

        Returns:
            What all blocks of the folder took, earlier runs' among them.

        Raises:
            SteerwardError: If the policy or the reward model cannot go on.
            OSError: If the folder cannot be written.
        """
        blocks = Blocks(folder)
        self._patience.begin()
        picks, done = drawing.picks, 0
        free = asyncio.Semaphore(self._concurrency)
        # As many as keep all places busy while one is being written.
        begun = asyncio.Semaphore(self._concurrency // BLOCK + 2)

        async def one(pick: Pick) -> _Prompt:
            nonlocal done
            async with free:
                found = await self._prompt(drawing, pick)
            done += 1
            self._on_prompt(done, len(picks), found.tokens)
            return found

        async def block(number: int, own: Sequence[Pick]) -> None:
            async with begun:
                async with asyncio.TaskGroup() as group:
                    working = [group.create_task(one(pick)) for pick in own]
                found = [task.result() for task in working]
                made = Block(
                    rows=[row for prompt in found for row in prompt.rows],
                    tokens=sum(prompt.tokens for prompt in found),
                    left_out=sum(not prompt.rows for prompt in found),
                )
                # Charged to this block: all time since the one before was written.
                await in_thread(blocks.write, number, made, self._clock.lap())

        missing: list[tuple[int, Sequence[Pick]]] = []
        for number, begin in enumerate(range(0, len(picks), BLOCK)):
            own = picks[begin : begin + BLOCK]
            if blocks.has(number):
                done += len(own)
            else:
                missing.append((number, own))
        self._on_prompt(done, len(picks), 0)
        try:
            async with asyncio.TaskGroup() as group:
                for number, own in missing:
                    group.create_task(block(number, own))
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        return await in_thread(blocks.drawn)

    async def _prompt(self, drawing: Drawing, pick: Pick) -> _Prompt:
        """Return the scored samples of one prompt under all of its directions, and their tokens."""
        prompt = drawing.prompts[pick.prompt]
        try:
            generated = await self._generate_all(drawing, pick, prompt)
            texts = [one.text for found in generated for one in found.completions]
            scored = await self._score_all(prompt, texts)
            rows = self._rows(drawing, pick, generated, scored)
        except _OF_THE_PROMPT as error:
            self._on_left_out(pick.prompt, error)
            return _Prompt([], 0)
        return _Prompt(rows, sum(found.tokens for found in generated))

    async def _generate_all(
        self, drawing: Drawing, pick: Pick, prompt: Turns
    ) -> Sequence[Generated]:
        try:
            # Not gather, which would let the others go on drawing when one has failed.
            async with asyncio.TaskGroup() as group:
                working = [
                    group.create_task(self._generate(drawing, pick, prompt, place))
                    for place in pick.directions
                ]
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        return [task.result() for task in working]

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

    async def _score_all(self, prompt: Turns, texts: Sequence[str]) -> list[_Scores]:
        found: list[_Scores] = []
        for begin in range(0, len(texts), _MOST_SCORED):
            part = texts[begin : begin + _MOST_SCORED]
            scored = await self._patience.call(partial(self._score, prompt, part))
            found += [
                _Scores(rewards, score, scored.weight_version)
                for rewards, score in zip(scored.rewards, scored.scores, strict=True)
            ]
        return found

    async def _score(self, prompt: Turns, texts: Sequence[str]) -> Scored:
        with self._clock.on(SCORING):
            return await self._reward_model.score(prompt, texts)

    def _rows(
        self,
        drawing: Drawing,
        pick: Pick,
        generated: Sequence[Generated],
        scored: Sequence[_Scores],
    ) -> list[SampleRow]:
        rule, reference = self._generator.rule, self._reward_model.reference
        rows: list[SampleRow] = []
        for place, found in zip(pick.directions, generated, strict=True):
            direction = drawing.directions[place]
            vector = rule.reward_direction(direction).components
            for sample, completion in enumerate(found.completions):
                own = scored[len(rows)]
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
                        rewards=dict(own.rewards),
                        score=own.score,
                        direction_score=reference_score(own.rewards, vector, reference),
                        policy_weight_version=found.weight_version,
                        reward_model=self._reward_model.name,
                        reward_weight_version=own.weight_version,
                    )
                )
        return rows


@dataclass(frozen=True, slots=True)
class _Scores:
    """What one completion was scored."""

    rewards: Mapping[str, float]
    score: float | None
    weight_version: str


@dataclass(frozen=True, slots=True)
class _Prompt:
    """What one prompt gave; without rows it was left out."""

    rows: Sequence[SampleRow]
    tokens: int


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
