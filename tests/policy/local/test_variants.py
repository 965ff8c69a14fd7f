"""Whole sets of weights that are served beside the policy: replaced, dropped, and gone."""

from __future__ import annotations

import asyncio
import shutil
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from steerward.policy.local.checkpoint import LocalCheckpoint, load_policy
from steerward.policy.local.policy import LocalPolicy
from steerward.protocol.errors import CheckpointRefused, InputTooLong, NotFound
from tests.policies import save_policy
from tests.policy.conftest import ask_all, make_policy, started, texts, until
from tests.policy.local.test_adapters import save_adapter
from tests.policy.local.test_decoding import generate

pytestmark = pytest.mark.anyio

TEXTS = ["Hello", "Tell me about rainbows."]
TUNED = "ft:tiny:short:ab12cd"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("tuned")
    return [save_policy(folder / str(seed), seed=seed) for seed in (1, 2)]


@pytest.fixture
async def policy(checkpoint: LocalCheckpoint) -> AsyncIterator[LocalPolicy]:
    policy = await started(make_policy(checkpoint))
    yield policy
    policy.close()


def request(variant: str | None = None, **changes: Any):
    return ask_all(TEXTS, variant=variant, **({"temperature": 0.0, "max_tokens": 30} | changes))


async def load(policy: LocalPolicy, folder: Path, name: str = TUNED) -> str:
    return await asyncio.to_thread(policy.load_variant, name, folder)


def expected(folder: Path) -> list[str]:
    checkpoint = load_policy(str(folder), device="cpu")
    return [generate(folder, checkpoint, text, 30) for text in TEXTS]


async def test_a_variant_draws_what_generate_gives_with_its_folder(
    policy: LocalPolicy, policy_folder: Path, tuned: list[Path]
) -> None:
    names = [None, TUNED, "another"]
    versions = [
        await load(policy, folder, name) for folder, name in zip(tuned, names[1:], strict=True)
    ]
    assert list(policy.variants) == names[1:]
    # All at once: a step runs each with its own weights.
    found = await asyncio.gather(*(texts(policy, request(name)) for name in names))
    assert list(found) == [expected(folder) for folder in (policy_folder, *tuned)]
    assert len({tuple(one) for one in found}) == 3
    cards = [policy.card(name) for name in names]
    assert [card.parent for card in cards] == [None, "tiny", "tiny"]
    assert [card.weight_version for card in cards[1:]] == versions
    assert len({card.weight_version for card in cards}) == 3
    assert [card.num_parameters for card in cards] == [cards[0].num_parameters] * 3
    with pytest.raises(InputTooLong, match="limit 256"):
        await policy.begin(request(TUNED, max_tokens=256))


async def test_each_answer_under_load_is_of_the_old_weights_or_of_the_new(
    policy: LocalPolicy, tuned: list[Path]
) -> None:
    versions = [await load(policy, tuned[0])]
    by_version = {versions[0]: await texts(policy, request(TUNED))}
    is_over = False
    answers: list[tuple[str, list[str]]] = []

    async def ask_again_and_again() -> None:
        while not is_over:
            generation = await policy.begin(request(TUNED))
            found = [""] * len(TEXTS)
            async for piece in generation:
                found[piece.index] += piece.text
            answers.append((generation.weight_version, found))

    asking = [asyncio.create_task(ask_again_and_again()) for _ in range(3)]
    for folder in (tuned[1], tuned[0], tuned[1]):
        count = len(answers)
        await until(lambda count=count: len(answers) > count + 3)
        versions.append(await load(policy, folder))
        by_version[versions[-1]] = await texts(policy, request(TUNED))
    is_over = True
    await asyncio.gather(*asking)
    assert {version for version, _ in answers} == set(versions[:2])
    assert len(by_version) == 2
    assert all(by_version[version] == found for version, found in answers)


async def test_replaced_weights_leave_the_memory_with_their_last_request(
    policy: LocalPolicy, tuned: list[Path]
) -> None:
    await load(policy, tuned[0])
    model = weakref.ref(policy._weights.of(TUNED).model)
    ended = await policy.begin(request(TUNED))
    given_up = await policy.begin(request(TUNED, max_tokens=200))
    await load(policy, tuned[1])
    found = [piece async for piece in ended]
    assert found[-1].finish_reason
    assert model() is not None
    await given_up.aclose()
    # The generations themselves may live on, in an answer that is still being written.
    await until(lambda: model() is None)
    assert ended.weight_version == given_up.weight_version


async def test_the_policys_own_weights_leave_the_memory_when_they_are_replaced(
    policy_folder: Path, tuned: list[Path]
) -> None:
    policy = await started(make_policy(load_policy(str(policy_folder), device="cpu")))
    model = weakref.ref(policy._weights.own.model)
    await texts(policy, request())
    await asyncio.to_thread(policy.swap_weights, tuned[0])
    await until(lambda: model() is None)
    policy.close()


async def test_a_dropped_variant_is_refused_and_its_requests_are_finished(
    policy: LocalPolicy, tuned: list[Path]
) -> None:
    await load(policy, tuned[0])
    model = weakref.ref(policy._weights.of(TUNED).model)
    before = await texts(policy, request(TUNED))
    running = await policy.begin(request(TUNED))
    policy.drop(TUNED)
    assert list(policy.variants) == []
    for refused in (policy.card, policy.drop):
        with pytest.raises(NotFound, match=f"no variant '{TUNED}'; known: none"):
            refused(TUNED)
    with pytest.raises(NotFound, match=TUNED):
        await policy.begin(request(TUNED))
    found = [""] * len(TEXTS)
    async for piece in running:
        found[piece.index] += piece.text
    assert found == before
    await until(lambda: model() is None)
    await load(policy, tuned[0])
    assert await texts(policy, request(TUNED)) == before


async def test_weights_of_their_own_stay_when_the_policys_are_swapped(
    policy: LocalPolicy, tuned: list[Path]
) -> None:
    await load(policy, tuned[0])
    before = await texts(policy, request(TUNED))
    await asyncio.to_thread(policy.swap_weights, tuned[1])
    assert list(policy.variants) == [TUNED]
    assert await texts(policy, request(TUNED)) == before != await texts(policy, request())


async def test_an_adapter_and_weights_take_over_from_each_other(
    policy: LocalPolicy, policy_folder: Path, tuned: list[Path], tmp_path: Path
) -> None:
    adapter = save_adapter(policy_folder, tmp_path / "a", seed=1)
    plain = await texts(policy, request())
    await asyncio.to_thread(policy.load_adapter, TUNED, adapter)
    adapted = await texts(policy, request(TUNED))
    await load(policy, tuned[0])
    assert await texts(policy, request(TUNED)) == expected(tuned[0]) != adapted
    await asyncio.to_thread(policy.load_adapter, TUNED, adapter)
    assert await texts(policy, request(TUNED)) == adapted
    policy.drop(TUNED)
    assert await texts(policy, request()) == plain != adapted


async def test_one_seed_gives_one_answer_and_each_variant_has_its_fingerprint(
    policy: LocalPolicy, tuned: list[Path]
) -> None:
    await load(policy, tuned[0])
    drawn: dict[str | None, list[list[str]]] = {}
    prints: set[str] = set()
    for name in (None, TUNED):
        asked = request(name, temperature=1.0, seed=4)
        drawn[name] = [await texts(policy, asked) for _ in range(2)]
        generation = await policy.begin(asked)
        await generation.aclose()
        prints.add(generation.system_fingerprint)
    assert all(first == again for first, again in drawn.values())
    assert drawn[None] != drawn[TUNED]
    assert len(prints) == 2


@pytest.mark.parametrize(("name", "message"), [("tiny", "policy itself"), ("", "which is empty")])
def test_a_variant_needs_a_name_of_its_own(
    checkpoint: LocalCheckpoint, tuned: list[Path], name: str, message: str
) -> None:
    policy = make_policy(checkpoint)
    for load_it in (policy.load_variant, policy.load_adapter):
        with pytest.raises(CheckpointRefused, match=message):
            load_it(name, tuned[0])


def test_weights_that_are_refused_leave_the_old_ones_served(
    checkpoint: LocalCheckpoint, tuned: list[Path], tmp_path: Path
) -> None:
    policy = make_policy(checkpoint)
    version = policy.load_variant(TUNED, tuned[0])
    short = save_policy(tmp_path / "short", positions=128)
    with pytest.raises(CheckpointRefused, match="reach 128 positions, requests may have 256"):
        policy.load_variant(TUNED, short)
    broken = shutil.copytree(tuned[1], tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointRefused, match="NaN"):
        policy.load_variant(TUNED, broken)
    assert policy.card(TUNED).weight_version == version
