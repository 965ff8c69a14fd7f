"""Encoding beside the event loop: what nobody waits for ends soon, and counts until then."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence

import pytest

from steerward.engine.tokenization import TokenizerPool, estimate_tokens
from steerward.models.chat import ChatEncoder, EncodedConversation, Turn
from steerward.models.checkpoint import load_reward_model
from steerward.models.reward_model import RewardModel
from steerward.protocol.errors import NotReady
from steerward.protocol.items import ScoreItem
from tests.golden_cases import GOLDEN

pytestmark = pytest.mark.anyio

MANY = [ScoreItem(prompt="Count to one hundred.", candidates=[f"It is {i}." for i in range(100)])]
ONE = [ScoreItem(prompt="Name a colour.", candidates=["Blue."])]


class HeldEncoder(ChatEncoder):
    """Holds the thread after each candidate until it is told to go on."""

    def __init__(self, encoder: ChatEncoder) -> None:
        super().__init__(encoder.tokenizer)
        self.num_encoded = 0
        self.has_begun = threading.Event()
        self.may_go_on = threading.Event()

    def encode_each(
        self, context: Sequence[Turn], answers: Sequence[str]
    ) -> Iterator[EncodedConversation]:
        for conversation in super().encode_each(context, answers):
            self.num_encoded += 1
            self.has_begun.set()
            assert self.may_go_on.wait(timeout=60.0)
            yield conversation


@pytest.fixture
def held() -> Iterator[tuple[RewardModel, HeldEncoder]]:
    model = load_reward_model(GOLDEN / "seqcls-llama-1", device="cpu")
    encoder = HeldEncoder(model.chat)
    model.chat = encoder
    yield model, encoder
    encoder.may_go_on.set()


async def test_job_without_a_waiter_ends_after_its_candidate_and_counts_until_then(
    held: tuple[RewardModel, HeldEncoder],
) -> None:
    model, encoder = held
    pool = TokenizerPool(model, num_threads=1)
    task = asyncio.create_task(pool.encode(MANY))
    await asyncio.to_thread(encoder.has_begun.wait, 60.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # The thread cannot be stopped: its work is still there, and admission must know.
    assert pool.pending_tokens == estimate_tokens(MANY)
    encoder.may_go_on.set()
    (groups,) = await asyncio.wait_for(pool.encode(ONE), timeout=60.0)
    assert len(groups) == 1
    assert encoder.num_encoded == 2  # One of the hundred, and the one that came after.
    assert pool.pending_tokens == 0
    pool.close()


async def test_items_whose_caller_has_gone_before_a_thread_took_them_are_not_encoded(
    held: tuple[RewardModel, HeldEncoder],
) -> None:
    model, encoder = held
    pool = TokenizerPool(model, num_threads=1)
    first = asyncio.create_task(pool.encode(ONE))
    await asyncio.to_thread(encoder.has_begun.wait, 60.0)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pool.encode(MANY), timeout=0.01)
    assert pool.pending_tokens == estimate_tokens(ONE)
    encoder.may_go_on.set()
    await first
    assert encoder.num_encoded == 1
    pool.close()


async def test_closing_answers_callers_whose_items_no_thread_took(
    held: tuple[RewardModel, HeldEncoder],
) -> None:
    model, encoder = held
    pool = TokenizerPool(model, num_threads=1)
    first = asyncio.create_task(pool.encode(ONE))
    await asyncio.to_thread(encoder.has_begun.wait, 60.0)
    second = asyncio.create_task(pool.encode(MANY))
    while pool.pending_tokens < estimate_tokens(MANY) + estimate_tokens(ONE):
        await asyncio.sleep(0.001)
    pool.close()
    with pytest.raises(NotReady, match="shutting down"):
        await second
    encoder.may_go_on.set()
    assert len(await first) == 1
