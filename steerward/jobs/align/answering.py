"""Rewards for the processes of a job, which ask for them at a socket of the file system."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from pydantic import ValidationError

from steerward.jobs.rsf.observer import Observer
from steerward.jobs.rsf.patience import Patience
from steerward.jobs.rsf.ports import RewardModel, Scored, Turns
from steerward.protocol.align_work import (
    LONGEST_LINE_BYTES,
    RewardGroup,
    RewardsGiven,
    RewardsWanted,
)
from steerward.protocol.alignment import SCORE
from steerward.protocol.errors import InputTooLong, InvalidRequest

Rewards = dict[str, float | None]

_CONCURRENCY = 16
"""Prompts that are scored at once; the reward model's other clients wait no longer for that."""


class Answering:
    """Scores what the processes of a job ask for.

    Args:
        reward_model: That scores.
        observer: Is told of completions that have no reward.
        patience: With a reward model that is busy or away.
        weight_version: Of the reward model that the job began with.
        most_candidates: Most completions of one prompt that it takes at once.
    """

    def __init__(
        self,
        reward_model: RewardModel,
        observer: Observer,
        patience: Patience,
        *,
        weight_version: str,
        most_candidates: int,
    ) -> None:
        self._reward_model = reward_model
        self._weight_version = weight_version
        self._most_candidates = most_candidates
        self._observer = observer
        self._patience = patience
        self._places = asyncio.Semaphore(_CONCURRENCY)
        self._has_told = False
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait_until_failed(self) -> None:
        """Wait for an error because of which there are no rewards; forever if there is none.

        Raises:
            SteerwardError: What it was.
        """
        await self._failed

    @asynccontextmanager
    async def served(self) -> AsyncIterator[Path]:
        """Give the path of the socket; when the block is left, nobody is answered any more."""
        # A folder of its own that nobody else may enter, and a path short enough for a socket.
        with tempfile.TemporaryDirectory(prefix="steerward-") as folder:
            path = Path(folder) / "rewards"
            answering: set[asyncio.Task[None]] = set()

            def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                task = asyncio.ensure_future(self._answer_all(reader, writer))
                answering.add(task)
                task.add_done_callback(answering.discard)

            server = await asyncio.start_unix_server(connected, path, limit=LONGEST_LINE_BYTES)
            try:
                yield path
            finally:
                server.close()
                for task in answering:
                    task.cancel()
                await asyncio.gather(*answering, return_exceptions=True)

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one process until it has gone."""
        try:
            async for line in reader:
                # Half a line is one that a kill has cut.
                if not line.endswith(b"\n"):
                    break
                given = await self._answer(_wanted(line))
                writer.write(given.model_dump_json().encode() + b"\n")
                await writer.drain()
        # A process that has gone is told of by its status.
        except ConnectionError:
            pass
        # The job ends with it.
        except Exception as error:
            if not self._failed.done():
                self._failed.set_exception(error)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, wanted: RewardsWanted) -> RewardsGiven:
        self._patience.begin()
        async with asyncio.TaskGroup() as scoring:
            groups = [
                scoring.create_task(self._group(group, wanted.objectives))
                for group in wanted.groups
            ]
        return RewardsGiven(rewards=[group.result() for group in groups])

    async def _group(self, group: RewardGroup, names: Sequence[str]) -> list[Rewards]:
        # Refused here, so that what the model refuses is too long and not too many.
        if len(group.completions) > self._most_candidates:
            raise InvalidRequest(
                f"a process asked for rewards of {len(group.completions):,} completions of one "
                f"prompt at once, limit {self._most_candidates:,}; raise the server's "
                "max_candidates"
            )
        async with self._places:
            try:
                scored = await self._score(group.messages, group.completions)
                return _named(scored, names)
            except InputTooLong:
                return [await self._alone(group.messages, one, names) for one in group.completions]

    async def _alone(self, messages: Turns, completion: str, names: Sequence[str]) -> Rewards:
        """Return the rewards of a completion by itself: None where it is too long for the model."""
        try:
            return _named(await self._score(messages, [completion]), names)[0]
        except InputTooLong as error:
            if not self._has_told:
                self._has_told = True
                self._observer.event(
                    f"a completion has no reward: {error.message}; more are not told one by one",
                    level="warn",
                )
            return dict.fromkeys(names)

    async def _score(self, messages: Turns, completions: Sequence[str]) -> Scored:
        scored = await self._patience.call(lambda: self._reward_model.score(messages, completions))
        if scored.weight_version != self._weight_version:
            raise InvalidRequest(
                "completions of this job were scored by different reward models, versions "
                f"{self._weight_version}, {scored.weight_version}, and cannot be compared: weights "
                "were exchanged while the job ran; create a new job",
                param="model",
            )
        return scored


def _wanted(line: bytes) -> RewardsWanted:
    try:
        return RewardsWanted.model_validate_json(line)
    except ValidationError as error:
        raise InvalidRequest("a process asked for rewards in a way that nobody knows") from error


def _named(scored: Scored, names: Sequence[str]) -> list[Rewards]:
    return [
        {name: _reward(rewards, score, name) for name in names}
        for rewards, score in zip(scored.rewards, scored.scores, strict=True)
    ]


def _reward(rewards: Mapping[str, float], score: float | None, name: str) -> float | None:
    return score if name == SCORE else rewards[name]
