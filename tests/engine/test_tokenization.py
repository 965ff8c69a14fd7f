"""Encoding beside the event loop: what nobody waits for ends soon, and counts until then."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from steerward.config import EngineConfig
from steerward.engine.engine import Engine
from steerward.engine.tokenization import TokenizerPool, estimate_tokens, tokens_of
from steerward.metrics import Metrics
from steerward.models.chat import ChatEncoder, EncodedConversation, Turn
from steerward.models.checkpoint import load_reward_model
from steerward.models.packing import Group
from steerward.models.reward_model import RewardModel
from steerward.protocol.errors import (
    DeadlineExceeded,
    InputTooLong,
    InvalidRequest,
    NotReady,
    Overloaded,
)
from steerward.protocol.items import ScoreItem
from steerward.protocol.tokenization import TokenizeRequest, TokenizeResponse
from tests.engine.conftest import StartEngine, request
from tests.golden_cases import GOLDEN, GOLDEN_NAMES, golden_cases

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


TEXTS: list[dict[str, Any]] = [
    {"prompt": "Explain rainbows.", "candidates": ["Light splits in drops.", "No.", "Nö – 日本"]},
    {"messages": golden_cases("armorm")[2]["messages"]},
    {
        "prompt": [
            {"role": "user", "content": "1 + 1?"},
            {"role": "assistant", "content": "2[PAD]<|eot_id|>"},
            {"role": "user", "content": "And 2 + 2?"},
        ],
        "candidates": ["4, of course", "5"],
    },
]


@pytest.mark.parametrize("name", GOLDEN_NAMES)
async def test_text_and_its_ids_have_the_same_scores(start_engine: StartEngine, name: str) -> None:
    engine = await start_engine(name, prefix_cache_bytes=0)
    answer = await engine.tokenize(TokenizeRequest.model_validate({"items": TEXTS}))
    tokenized = TokenizeResponse.model_validate(answer)
    assert (tokenized.model, tokenized.weight_version) == (name, engine.weight_version)
    by_ids = [{"tokens": item["tokens"]} for item in answer["items"]]
    of_text = await engine.score(request(items=TEXTS, explain=True))
    of_ids = await engine.score(request(items=by_ids, explain=True))
    # The same groups make the same batch: not a bit differs.
    assert of_ids.answer["items"] == of_text.answer["items"]
    assert of_ids.answer["usage"] == of_text.answer["usage"]
    for item, scored in zip(tokenized.items, of_text.answer["items"], strict=True):
        counts = [candidate["tokens"] for candidate in scored["candidates"]]
        assert item.candidate_tokens == counts == [len(ids) for ids in item.tokens.candidates]
        assert item.prompt_tokens == len(item.tokens.prompt)
        assert item.tokens.gating_position is not None
    # Text and ids of one prompt share it: the batch sees groups and not where they came from.
    both = await engine.score(request(items=[TEXTS[0], by_ids[0]]))
    saved = both.answer["usage"]["prefix_tokens_saved"]
    assert saved == 5 * tokenized.items[0].prompt_tokens


async def test_ids_are_counted_as_they_are_for_admission() -> None:
    tokens = {"prompt": [1] * 100, "candidates": [[1] * 10, [2] * 20]}
    items = [ScoreItem.model_validate({"tokens": tokens})]
    assert estimate_tokens(items) == 130
    assert estimate_tokens([*items, *ONE]) == 130 + estimate_tokens(ONE)


async def test_error_of_ids_names_its_place_in_the_request(start_engine: StartEngine) -> None:
    engine = await start_engine("seqcls-llama-1")
    good = {"tokens": {"prompt": [1018, 5], "candidates": [[6], [7]]}}
    bad = {"tokens": {"prompt": [1018, 5], "candidates": [[6], [7, 8, 4096]]}}
    with pytest.raises(
        InvalidRequest, match=r"4096 is not in the vocabulary.*0 to 1,023"
    ) as caught:
        await engine.score(request(items=[good, bad]))
    assert caught.value.param == "items[1].tokens.candidates[1][2]"
    assert len((await engine.score(request(items=[good]))).answer["items"][0]["candidates"]) == 2


async def test_tokenising_obeys_the_limits_of_scoring(start_engine: StartEngine) -> None:
    engine = await start_engine(max_candidates=4, max_items=2)

    async def tokenize(*items: dict[str, Any]) -> dict[str, Any]:
        return await engine.tokenize(TokenizeRequest.model_validate({"items": list(items)}))

    with pytest.raises(InputTooLong, match="6 candidates, limit 4"):
        await tokenize(TEXTS[0], TEXTS[0])
    with pytest.raises(InputTooLong, match="3 items, limit 2"):
        await tokenize(*TEXTS)
    with pytest.raises(InputTooLong, match="limit 2,048") as caught:
        await tokenize({"prompt": "a", "candidates": ["b", "y " * 4000]})
    assert caught.value.param == "items[0].candidates[1]"
    engine.begin_drain()
    with pytest.raises(NotReady, match="shutting down"):
        await tokenize(TEXTS[0])


async def test_tokenising_is_refused_while_the_queue_is_full_and_ends_at_its_deadline(
    held: tuple[RewardModel, HeldEncoder],
) -> None:
    model, encoder = held
    config = EngineConfig(device="cpu", max_queued_tokens=20, request_timeout_s=0.05)
    engine = Engine(model, name="held", config=config, metrics=Metrics())
    engine.start()
    await engine.wait_until_ready()
    body = TokenizeRequest.model_validate({"items": [{"prompt": "p", "candidates": ["w " * 99]}]})
    with pytest.raises(DeadlineExceeded, match="no token ids"):
        await engine.tokenize(body)
    # Its thread is still busy with it.
    with pytest.raises(Overloaded):
        await engine.tokenize(body)
    encoder.may_go_on.set()
    engine.close()


def test_candidates_without_a_prompt_in_common_have_no_ids_in_common(
    golden_models: dict[str, RewardModel],
) -> None:
    groups = [Group((1018, 5), [(6,)], 1), Group((1018, 7), [(8,)], 1)]
    inside = [Group((1018, 5), [(6,)], 2)]
    for model, given in (("armorm", groups), ("urm", groups), ("armorm", inside)):
        with pytest.raises(InvalidRequest, match="item of its own") as caught:
            tokens_of(golden_models[model], 3, given)
        assert caught.value.param == "items[3]"
    # Where no gate reads the position, it is left out.
    tokens = tokens_of(golden_models["urm"], 3, inside)["tokens"]
    assert tokens == {"prompt": [1018, 5], "candidates": [[6]]}
