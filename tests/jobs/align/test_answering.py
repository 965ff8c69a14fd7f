"""Rewards over a socket: in order, of completions that are too long none, in pieces of any size."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from steerward.jobs.align.answering import Answering
from steerward.jobs.rsf.patience import Patience
from steerward.protocol.align_work import RewardGroup, RewardsGiven, RewardsWanted
from steerward.protocol.errors import InputTooLong, InvalidRequest, Overloaded
from tests.jobs.align.telling import Told
from tests.jobs.rsf.playing import PlayedRewards

pytestmark = pytest.mark.anyio

MOST = 8


def wanted(*groups: Sequence[str]) -> RewardsWanted:
    return RewardsWanted(
        objectives=["length", "score"],
        groups=[
            RewardGroup(
                messages=[{"role": "user", "content": f"Question {place}"}], completions=[*texts]
            )
            for place, texts in enumerate(groups)
        ],
    )


async def ask(path: Path, *questions: RewardsWanted) -> list[RewardsGiven]:
    """Ask as a process does; what is not answered is missing."""
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 26)
    found: list[RewardsGiven] = []
    for question in questions:
        writer.write(question.model_dump_json().encode() + b"\n")
        await writer.drain()
        if not (line := await reader.readline()):
            break
        found.append(RewardsGiven.model_validate_json(line))
    writer.close()
    await writer.wait_closed()
    return found


def answering(told: Told, rewards: PlayedRewards, *, patience_s: float = 30.0) -> Answering:
    return Answering(rewards, told, Patience(patience_s), weight_version="r1", most_candidates=MOST)


async def test_processes_that_ask_together_get_each_their_own() -> None:
    async with answering(Told(), PlayedRewards()).served() as path:
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        first, second = await asyncio.gather(
            ask(path, wanted(["a", "bb"], ["ccc"]), wanted(["d" * 7])), ask(path, wanted(["eeee"]))
        )
    assert [[[one["length"] for one in group] for group in given.rewards] for given in first] == [
        [[1.0, 2.0], [3.0]],
        [[7.0]],
    ]
    assert second[0].rewards == [[{"length": 4.0, "score": 0.5}]]
    assert not path.parent.exists()


async def test_a_line_may_be_megabytes_long() -> None:
    texts = ["x" * 1_000_000] * 5
    async with answering(Told(), PlayedRewards()).served() as path:
        (given,) = await ask(path, wanted(texts))
    assert [one["length"] for one in given.rewards[0]] == [1e6] * 5


async def test_a_completion_that_is_too_long_has_no_reward_and_is_told_once() -> None:
    def refuse(completions: Sequence[str]) -> None:
        if any(len(text) > 3 for text in completions):
            raise InputTooLong("candidate has 4 tokens, limit 3")

    told = Told()
    async with answering(told, PlayedRewards(before=refuse)).served() as path:
        (given,) = await ask(path, wanted(["a", "bbbb", "cc"], ["dddd"]))
    lengths = [[one["length"] for one in group] for group in given.rewards]
    assert lengths == [[1.0, None, 2.0], [None]]
    assert given.rewards[0][1]["score"] is None
    (warning,) = told.warnings
    assert "has no reward: candidate has 4 tokens, limit 3" in warning


async def test_a_reward_model_that_is_busy_is_asked_again() -> None:
    calls = 0

    def busy(_: Sequence[str]) -> None:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise Overloaded("full", retry_after_s=0.01)

    async with answering(Told(), PlayedRewards(before=busy)).served() as path:
        (given,) = await ask(path, wanted(["a"]))
    assert given.rewards[0][0]["length"] == 1.0


async def test_rewards_of_other_weights_end_the_job() -> None:
    rewards = PlayedRewards()
    one = answering(Told(), rewards)
    async with one.served() as path:
        assert len(await ask(path, wanted(["a"]))) == 1
        rewards.version = "r2"
        assert await ask(path, wanted(["a"])) == []
        with pytest.raises(ExceptionGroup) as caught:
            await one.wait_until_failed()
    told = "different reward models, versions r1, r2, and cannot be compared"
    assert caught.group_contains(InvalidRequest, match=told)


async def test_too_many_at_once_are_not_taken_for_too_long() -> None:
    told = Told()
    one = answering(told, PlayedRewards())
    async with one.served() as path:
        assert await ask(path, wanted(["a"] * (MOST + 1))) == []
        with pytest.raises(ExceptionGroup) as caught:
            await one.wait_until_failed()
    assert caught.group_contains(InvalidRequest, match="9 completions of one prompt .* limit 8")
    assert told.warnings == []


async def test_half_a_question_of_a_killed_process_is_nobodys_error() -> None:
    one = answering(Told(), PlayedRewards())
    async with one.served() as path:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(wanted(["a"]).model_dump_json().encode()[:20])
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        # The next process is answered.
        assert len(await ask(path, wanted(["a"]))) == 1
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await one.wait_until_failed()


async def test_an_error_that_stays_is_told_to_whoever_waits_for_it() -> None:
    def wrong(_: Sequence[str]) -> None:
        raise InvalidRequest("no such prompt")

    one = answering(Told(), PlayedRewards(before=wrong))
    async with one.served() as path:
        assert await ask(path, wanted(["a"], ["b"])) == []
        with pytest.raises(ExceptionGroup) as caught:
            await one.wait_until_failed()
    assert caught.group_contains(InvalidRequest, match="no such prompt")
