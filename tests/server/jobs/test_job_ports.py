"""A policy as jobs ask it: it leaves places for others."""

from __future__ import annotations

import asyncio

import pytest

from steerward.jobs.rsf.ports import Generated, Sampling
from steerward.policy.local.checkpoint import load_policy
from steerward.protocol.directions import PreferenceDirection
from steerward.server.job_ports import ServedPolicy
from tests.policy.conftest import make_policy, started

pytestmark = pytest.mark.anyio

DIRECTION = PreferenceDirection({"helpfulness": 1.0, "verbosity": 0.0})


@pytest.mark.parametrize(
    ("num", "most"), [(2, 4), (3, 3), (6, 6)], ids=["half", "less than half", "one prompt"]
)
async def test_a_job_takes_half_of_the_places_or_those_of_one_prompt(
    policy_folder: str, num: int, most: int
) -> None:
    policy = await started(make_policy(load_policy(policy_folder, device="cpu"), max_running=8))
    served = ServedPolicy(policy, name="ft:tiny", start=None)

    async def draw(seed: int) -> Generated:
        sampling = Sampling(temperature=1.0, top_p=1.0, max_tokens=16, seed=seed)
        turns = [{"role": "user", "content": f"Hello {seed}"}]
        return await served.generate(turns, direction=DIRECTION, num=num, sampling=sampling)

    drawing = [asyncio.create_task(draw(seed)) for seed in range(5)]
    seen = 0
    while not all(task.done() for task in drawing):
        card = policy.card()
        seen = max(seen, card.running + card.waiting)
        await asyncio.sleep(0)
    assert 0 < seen <= most
    assert [len((await task).completions) for task in drawing] == [num] * 5
    policy.close()
