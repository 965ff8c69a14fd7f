"""Sampling block by block: what is drawn, what it counts, and what a stop leaves."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from steerward.jobs.rsf.clock import Clock
from steerward.jobs.rsf.draw import Pick
from steerward.jobs.rsf.patience import Patience
from steerward.jobs.rsf.ports import Sampling
from steerward.jobs.rsf.samples import read_samples
from steerward.jobs.rsf.sampling import BLOCK, Drawing, Sampler, seed_of
from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.errors import InvalidRequest, NonFiniteScore, SteerwardError
from tests.jobs.rsf.playing import PlayedPolicy, PlayedRewards

pytestmark = pytest.mark.anyio

AHEAD = PreferenceDirection({"helpfulness": 1.0, "verbosity": 0.0})
ASIDE = PreferenceDirection({"helpfulness": 0.8, "verbosity": 0.6})


class Told:
    """What a sampler told."""

    def __init__(self) -> None:
        self.done: list[tuple[int, int, int]] = []
        self.left_out: list[tuple[int, str]] = []

    def prompt(self, done: int, total: int, tokens: int) -> None:
        self.done.append((done, total, tokens))

    def leave_out(self, row: int, error: SteerwardError) -> None:
        self.left_out.append((row, error.message))


def drawing(num: int = 40) -> Drawing:
    prompts = [[{"role": "user", "content": f"Question {number}?"}] for number in range(num)]
    picks = [Pick(number, number, (0, 1), 100 + number) for number in range(num)]
    return Drawing("job", 1, picks, prompts, [AHEAD, ASIDE], 2, Sampling(1.0, 1.0, 8, seed=0))


def sampler(policy: PlayedPolicy, rewards: PlayedRewards, told: Told, **changes: Any) -> Sampler:
    options = {"concurrency": 4, "clock": Clock(["sampling", "scoring"]), **changes}
    return Sampler(
        policy,
        rewards,
        patience=Patience(5.0),
        on_prompt=told.prompt,
        on_left_out=told.leave_out,
        **options,
    )


async def test_rows_are_in_order_with_their_lineage(tmp_path: Path) -> None:
    told = Told()
    drawn = await sampler(PlayedPolicy(), PlayedRewards(), told).draw(drawing(), tmp_path / "p")
    rows = read_samples(tmp_path / "p")
    assert [row.number for row in rows] == [number for number in range(40) for _ in range(4)]
    assert [row.direction_index for row in rows[:4]] == [0, 0, 1, 1]
    assert [row.sample for row in rows[:4]] == [0, 1, 0, 1]
    assert rows[2].sample_seed == seed_of(drawing().picks[0], 1)
    assert rows[0].policy_weight_version == "base"
    assert (rows[0].reward_model, rows[0].reward_weight_version) == ("played-rewards", "r1")
    assert (drawn.tokens, drawn.left_out) == (40 * 4 * 5, 0)
    assert drawn.seconds.keys() == {"sampling", "scoring"}
    assert told.done[0] == (0, 40, 0)
    assert told.done[-1] == (40, 40, 20)


async def test_tokens_are_counted_where_no_completion_knows_its_own(tmp_path: Path) -> None:
    policy = PlayedPolicy(tells_tokens=False)
    drawn = await sampler(policy, PlayedRewards(), Told()).draw(drawing(), tmp_path / "p")
    assert drawn.tokens == 40 * 4 * 5
    assert {row.tokens for row in read_samples(tmp_path / "p")} == {None}


async def test_a_stopped_drawing_goes_on_and_counts_both_runs(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = await sampler(PlayedPolicy(), PlayedRewards(), Told()).draw(drawing(), whole)
    policy = PlayedPolicy()
    reached = asyncio.Event()

    def look(_: object) -> None:
        if policy.drawn == 60:
            reached.set()

    policy.before = look
    running = asyncio.create_task(sampler(policy, PlayedRewards(), Told()).draw(drawing(), parts))
    await reached.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert 1 <= len([*parts.glob("*.parquet")]) < 3
    again, told = PlayedPolicy(), Told()
    drawn = await sampler(again, PlayedRewards(), told).draw(drawing(), parts)
    assert read_samples(parts) == read_samples(whole)
    assert (drawn.tokens, drawn.left_out) == (expected.tokens, 0)
    assert again.drawn < 80
    assert told.done[0][0] % BLOCK in (0, 40 % BLOCK)
    assert told.done[0][0] > 0


async def test_errors_of_a_prompt_leave_it_out_and_no_other(tmp_path: Path) -> None:
    rewards = PlayedRewards()
    numbers = iter(range(1000))

    def refuse(_: object) -> None:
        number = next(numbers)
        if number == 0:
            raise InvalidRequest("nothing to score")
        if number == 1:
            raise NonFiniteScore("not a number")

    rewards.before, told = refuse, Told()
    drawn = await sampler(PlayedPolicy(), rewards, told, concurrency=1).draw(
        drawing(), tmp_path / "p"
    )
    assert told.left_out == [(0, "nothing to score"), (1, "not a number")]
    assert drawn.left_out == 2
    assert {row.number for row in read_samples(tmp_path / "p")} == set(range(2, 40))


async def test_an_error_ends_all_drawing_before_it_is_raised(tmp_path: Path) -> None:
    policy = PlayedPolicy()

    def fail(_: object) -> None:
        if policy.drawn >= 10:
            raise SteerwardError("the policy has failed")

    policy.before = fail
    with pytest.raises(SteerwardError, match="the policy has failed"):
        await sampler(policy, PlayedRewards(), Told()).draw(drawing(), tmp_path / "p")
    seen = policy.fuse.count
    await asyncio.sleep(0.05)
    assert policy.fuse.count == seen


async def test_a_full_disk_is_told_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "block-00000.json").mkdir()
    with pytest.raises(OSError, match="block-00000"):
        await sampler(PlayedPolicy(), PlayedRewards(), Told()).draw(drawing(), folder)


async def test_more_completions_than_a_call_takes_are_scored_in_parts(tmp_path: Path) -> None:
    rewards, calls = PlayedRewards(), 0

    def count(_: object) -> None:
        nonlocal calls
        calls += 1

    rewards.before = count
    wanted = dataclasses.replace(drawing(1), num=150)
    await sampler(PlayedPolicy(), rewards, Told()).draw(wanted, tmp_path / "p")
    rows = read_samples(tmp_path / "p")
    assert (len(rows), calls) == (300, 2)
    for row in (rows[0], rows[255], rows[256], rows[-1]):
        alone = await PlayedRewards().score(row.prompt, [row.completion])
        assert dict(row.rewards) == dict(alone.rewards[0])
