"""The scheduler with real bookkeeping and a pretended device that only counts tokens."""

from __future__ import annotations

import random
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from steerward.policy.local.blocks import BlockPool
from steerward.policy.local.sampling import Draw
from steerward.policy.local.scheduler import Scheduler, Step
from steerward.policy.local.sequence import Job, Sample, SharedPrompt
from steerward.policy.local.text import TextStream

BLOCK = 4


def make_prompt(job: Job, length: int, samples: int, max_tokens: int) -> SharedPrompt:
    ids = list(range(length))
    text = TextStream(Tokenizer(models.BPE()), prompt=(), stop=())
    draw = Draw(0.0, 1.0, 0.0, 0.0, None, random.Random(0))
    waiting = [
        Sample(job, i, draw, text, max_tokens, frozenset(), prompt_ids=ids) for i in range(samples)
    ]
    return SharedPrompt(job, ids, waiting)


def job(weights: int = 0) -> Job:
    return Job(cast("Any", weights))


def compute(steps: list[Step]) -> None:
    """Pretend to compute some steps."""
    for step in steps:
        for run in step.runs:
            run.prompt.computed = run.end
            if run.end == len(run.prompt.ids):
                run.prompt.logits_V = torch.zeros(1)
        for sample in step.samples:
            sample.tokens.append(len(sample.tokens))


def run_to_the_end(
    scheduler: Scheduler, pool: BlockPool, *, max_running: int, max_step_tokens: int
) -> list[Sample]:
    """Compute step after step, and check on the way what must hold in each."""
    finished: list[Sample] = []
    held: dict[int, list[int]] = {}
    for _ in range(10_000):
        steps = scheduler.next_steps()
        begun = scheduler.begin_samples() if not steps else []
        if not steps and not begun:
            assert not scheduler.num_running
            assert not scheduler.num_waiting
            assert pool.num_free == pool.num_blocks
            return finished
        for step in steps:
            assert sum(run.end - run.begin for run in step.runs) <= max_step_tokens
            assert len({id(s.job.weights) for s in step.samples}) <= 1
            for run in step.runs:
                assert run.begin == run.prompt.computed
                assert len(run.prompt.table) == pool.blocks_for(len(run.prompt.ids))
                run.prompt.computed = run.end
                if run.end == len(run.prompt.ids):
                    run.prompt.logits_V = torch.zeros(1)
            for sample in step.samples:
                assert len(sample.table) == pool.blocks_for(sample.length)
                # The block that this token is written to is this sample's alone.
                held[id(sample)] = sample.table
                sample.tokens.append(len(sample.tokens))
        writing = [s.table[(s.length - 2) // BLOCK] for step in steps for s in step.samples]
        assert len(set(writing)) == len(writing)
        for one in [*begun, *scheduler.begin_samples()]:
            one.sample.tokens.append(len(one.sample.tokens))
        assert scheduler.num_running <= max_running
        for sample in [s for s in scheduler.running if len(s.tokens) >= s.max_tokens]:
            assert sample.tokens == list(range(sample.max_tokens))
            scheduler.end(sample)
            finished.append(sample)
    pytest.fail("it never came to an end")


@given(
    prompts=st.lists(
        st.tuples(st.integers(1, 20), st.integers(1, 4), st.integers(1, 12), st.integers(0, 1)),
        min_size=1,
        max_size=8,
    ),
    spare_blocks=st.integers(0, 12),
    max_running=st.integers(1, 6),
    max_step_tokens=st.integers(1, 24),
)
@settings(deadline=None, max_examples=200)
def test_everything_is_drawn_once_in_order_with_any_memory(
    prompts: list[tuple[int, int, int, int]],
    spare_blocks: int,
    max_running: int,
    max_step_tokens: int,
) -> None:
    longest = 32
    pool = BlockPool(longest // BLOCK + 1 + spare_blocks, block_tokens=BLOCK)
    scheduler = Scheduler(pool, max_running=max_running, max_step_tokens=max_step_tokens)
    for length, samples, max_tokens, weights in prompts:
        scheduler.add([make_prompt(job(weights), length, samples, max_tokens)])
    finished = run_to_the_end(
        scheduler, pool, max_running=max_running, max_step_tokens=max_step_tokens
    )
    assert len(finished) == sum(samples for _, samples, _, _ in prompts)


def test_samples_of_a_prompt_share_its_whole_blocks() -> None:
    pool = BlockPool(20, block_tokens=BLOCK)
    scheduler = Scheduler(pool, max_running=8, max_step_tokens=64)
    prompt = make_prompt(job(), length=10, samples=3, max_tokens=4)
    scheduler.add([prompt])
    (step,) = scheduler.next_steps()
    step.runs[0].prompt.computed = 10
    prompt.logits_V = torch.zeros(1)
    tables = [begun.sample.table for begun in scheduler.begin_samples()]
    assert len({table[0] for table in tables}) == len({table[1] for table in tables}) == 1
    assert len({table[2] for table in tables}) == 3
    assert pool.num_free == 20 - 2 - 3


def test_what_is_dropped_leaves_nothing_behind() -> None:
    pool = BlockPool(20, block_tokens=BLOCK)
    scheduler = Scheduler(pool, max_running=8, max_step_tokens=64)
    first, second = job(), job()
    prompts = [make_prompt(first, 10, 3, 4), make_prompt(second, 6, 1, 4)]
    scheduler.add(prompts)
    scheduler.next_steps()
    for prompt in prompts:
        prompt.computed, prompt.logits_V = len(prompt.ids), torch.zeros(1)
    scheduler.begin_samples()
    scheduler.drop({first})
    assert scheduler.jobs == {second}
    scheduler.drop({second})
    assert pool.num_free == 20


@pytest.mark.parametrize("blocks", [200, 9], ids=["ample", "scarce"])
def test_a_variant_with_a_constant_stream_of_work_starves_nobody(blocks: int) -> None:
    """All weights share one line for places: what came earlier has its turn earlier."""
    pool = BlockPool(blocks, block_tokens=BLOCK)
    scheduler = Scheduler(pool, max_running=2, max_step_tokens=16)
    stream, own = job(1), job(2)
    asked = make_prompt(own, length=6, samples=2, max_tokens=5)
    mine = list(asked.waiting)
    ended_of_stream = 0
    for iteration in range(200):
        while scheduler.num_waiting < 4:
            scheduler.add([make_prompt(stream, length=8, samples=1, max_tokens=6)])
        if iteration == 10:
            scheduler.add([asked])
        compute(scheduler.next_steps())
        for begun in scheduler.begin_samples():
            begun.sample.tokens.append(len(begun.sample.tokens))
        for sample in [s for s in scheduler.running if len(s.tokens) >= s.max_tokens]:
            scheduler.end(sample)
            ended_of_stream += iteration > 10 and sample.job is stream
        if all(len(sample.tokens) == sample.max_tokens for sample in mine):
            break
    else:
        pytest.fail("the policy's own request never came to its end")
    # No more than what stood in front of it, and what shared the places with it.
    assert ended_of_stream <= 4 + 2 + 2


def test_every_iteration_draws_for_all_weights() -> None:
    pool = BlockPool(60, block_tokens=BLOCK)
    scheduler = Scheduler(pool, max_running=12, max_step_tokens=64)
    # Many of one and one each of two others.
    counts = {1: 8, 2: 1, 3: 1}
    for weights, samples in counts.items():
        scheduler.add([make_prompt(job(weights), 5, samples, 4)])
    compute(scheduler.next_steps())
    for begun in scheduler.begin_samples():
        begun.sample.tokens.append(0)
    for _ in range(3):
        steps = scheduler.next_steps()
        compute(steps)
        drawn = {step.samples[0].job.weights: len(step.samples) for step in steps}
        assert drawn == counts
