"""A policy on another server draws and is steered as one of this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from steerward.config import EngineConfig
from steerward.engine.engine import Engine
from steerward.metrics import Metrics
from steerward.models.reward_model import RewardModel
from steerward.policy.generation import GenerationRequest, Policy
from steerward.policy.remote import RemotePolicy
from steerward.policy.steering import Reward, SteeredPolicy, SteeringRequest
from steerward.protocol.errors import (
    NotFound,
)
from steerward.server.rewards import EngineRewards
from tests.policies import save_policy
from tests.policy.conftest import ask, ask_all, texts
from tests.policy.local.test_adapters import save_adapter
from tests.policy.remote.peers import (
    LONG,
    RULE,
    SHORT,
    Peer,
    app_of,
    ask_text,
    client_of,
    drawn,
    held,
    remote_of,
)
from tests.policy.steering.models import close_to

pytestmark = pytest.mark.anyio

Choice = tuple[int, str, Reward]


@pytest.mark.parametrize(
    "request_of",
    [
        lambda: ask("Hello", **SHORT),
        lambda: ask_all(["Hello"] * 4, **SHORT),
        lambda: ask_all(["Hello"] * 2, **{**SHORT, "top_p": 0.8, "temperature": 1.5}),
        lambda: ask_all(["Hello"], **LONG),
        lambda: ask_all(["Hello"], **{**LONG, "presence_penalty": 1.5, "frequency_penalty": -0.5}),
        lambda: ask_text("Tell me", 3, **SHORT),
        lambda: ask_all(["Hello"] * 2, **{**SHORT, "seed": 2**63 - 1}),
    ],
    ids=["one", "four", "top_p", "greedy", "penalties", "text", "largest seed"],
)
async def test_one_seed_draws_the_same_there_as_here(
    peer: Peer, remote: RemotePolicy, request_of: Callable[[], GenerationRequest]
) -> None:
    far, near = [await drawn(policy, request_of()) for policy in (remote, peer.policy)]
    assert far == near
    assert far.num_tokens > 0
    assert any(far.texts)


async def test_length_is_the_other_servers_where_none_is_asked_for(
    peer: Peer, remote: RemotePolicy
) -> None:
    far, near = [await drawn(p, ask("Hello", temperature=0.0)) for p in (remote, peer.policy)]
    assert far == near


async def test_distinct_prompts_are_drawn_each_from_a_stream_of_its_own(
    peer: Peer, remote: RemotePolicy
) -> None:
    request = ask_all(["Hello", "Tell me about rainbows.", "Hello"], **SHORT)
    first, again = [await drawn(remote, request) for _ in range(2)]
    assert first == again
    assert first.prompt_tokens == (await drawn(peer.policy, request)).prompt_tokens
    assert len(set(first.texts)) == 3
    greedy = ask_all(["Hello", "Tell me about rainbows."], temperature=0.0, max_tokens=20)
    far, near = [await drawn(policy, greedy) for policy in (remote, peer.policy)]
    assert far.texts == near.texts


@pytest.mark.parametrize("top", [0, 3])
async def test_logprobs_are_those_of_the_other_server(
    peer: Peer, remote: RemotePolicy, top: int
) -> None:
    request = ask_all(["Hello"] * 2, **SHORT, top_logprobs=top)
    far, near = [await drawn(policy, request) for policy in (remote, peer.policy)]
    assert far == near
    assert sum(map(len, far.logprobs)) == far.num_tokens
    assert {len(one.top) for own in far.logprobs for one in own} == {top}


async def test_logprobs_of_a_text_are_there_too(peer: Peer, remote: RemotePolicy) -> None:
    request = ask_text("Tell me", **SHORT, top_logprobs=2)
    far, near = [await drawn(policy, request) for policy in (remote, peer.policy)]
    assert (far.texts, far.num_tokens) == (near.texts, near.num_tokens)
    found, expected = [
        [(one.chosen.token, one.chosen.logprob) for one in drawn.logprobs[0]]
        for drawn in (far, near)
    ]
    assert found == expected


async def test_stop_text_ends_the_completion_before_it(peer: Peer, remote: RemotePolicy) -> None:
    (whole,) = await texts(peer.policy, ask("Tell me", **LONG))
    stop = whole[len(whole) // 2 :][:3]
    found = await drawn(remote, ask("Tell me", **LONG, stop=(stop,)))
    assert found.texts == [whole[: whole.index(stop)]]
    assert found.reasons == ["stop"]


async def test_pieces_come_while_the_rest_is_drawn(peer: Peer, remote: RemotePolicy) -> None:
    with held(peer.policy, after=3):
        generation = await remote.begin(ask("Hello", **LONG))
        reading = aiter(generation)
        first = await asyncio.wait_for(anext(reading), 5.0)
        assert first.finish_reason is None
        assert peer.policy.card().running == 1
        await generation.aclose()


async def test_card_tells_of_the_other_server_and_follows_its_weights(
    peer: Peer, remote: RemotePolicy, tmp_path: Path
) -> None:
    before, there = remote.card(), peer.policy.card()
    assert (before.id, before.device) == ("far", peer.url)
    assert before.weight_version == there.weight_version
    assert before.max_input_tokens == there.max_input_tokens
    other = save_policy(tmp_path / "other", seed=1)
    version = await asyncio.to_thread(peer.policy.swap_weights, other)
    found = await drawn(remote, ask("Hello", **LONG))
    assert found == await drawn(peer.policy, ask("Hello", **LONG))
    assert version == found.weight_version == remote.card().weight_version != there.weight_version


async def test_variants_are_asked_for_by_their_names(
    peer: Peer, policy_folder: Path, tmp_path: Path
) -> None:
    folder = save_adapter(policy_folder, tmp_path / "kind", seed=1)
    await asyncio.to_thread(peer.policy.load_adapter, "kind", folder)
    async with remote_of(peer.url, variants=["kind", "dropped"]) as remote:
        request = ask_all(["Hello"], variant="kind", **LONG)
        far, near = [await drawn(policy, request) for policy in (remote, peer.policy)]
        assert far == near
        assert far.texts != await texts(remote, ask("Hello", **LONG))
        assert remote.card("kind").parent == "far"
        with pytest.raises(NotFound, match="no variant 'absent'; known: kind, dropped"):
            await remote.begin(ask_all(["Hello"], variant="absent"))
        with pytest.raises(NotFound, match="dropped"):
            await remote.begin(ask_all(["Hello"], variant="dropped"))


@pytest.fixture
async def engine(armorm: RewardModel) -> AsyncIterator[Engine]:
    settings = EngineConfig(device="cpu", prefix_cache_bytes=0)
    engine = Engine(armorm, name="armorm", config=settings, metrics=Metrics())
    engine.start()
    await engine.wait_until_ready()
    yield engine
    engine.close()


async def steered_by(
    policy: Policy, rewards: EngineRewards, **fields: Any
) -> tuple[list[Choice], tuple[int, int], Any]:
    asked = ask("Hello", **SHORT)
    generation = await SteeredPolicy(policy, rewards).begin(
        SteeringRequest(asked.prompts[0], asked.sampling, asked.deadline, **fields)
    )
    texts, rewards_by_index = [""] * fields["n"], {}
    async for part in generation:
        texts[part.index] += part.text
        if part.reward is not None:
            rewards_by_index[part.index] = part.reward
    choices = [(index, text, rewards_by_index[index]) for index, text in enumerate(texts)]
    return (
        choices,
        (generation.prompt_tokens, generation.completion_tokens),
        generation.report,
    )


def assert_same_choices(far: Sequence[Choice], near: Sequence[Choice]) -> None:
    """Compare choices; their rewards up to rounding, for they may be scored in other company."""
    assert [choice[:2] for choice in far] == [choice[:2] for choice in near]
    for one, other in zip(far, near, strict=True):
        assert_close(asdict(one[2]), asdict(other[2]))


def assert_close(far: dict[str, Any], near: dict[str, Any]) -> None:
    assert far.keys() == near.keys()
    for name, value in near.items():
        assert far[name] == (value if isinstance(value, str) else close_to(value))


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 3, "steering": "prompt"},
        {"n": 2, "steering": "best_of", "best_of": 6},
    ],
    ids=["prompt", "best_of"],
)
async def test_steering_does_the_same_with_a_policy_elsewhere(
    peer: Peer, engine: Engine, fields: dict[str, Any]
) -> None:
    rewards = EngineRewards(engine)
    async with remote_of(peer.url, rule=RULE) as remote:
        far, near = [
            await steered_by(policy, rewards, direction=RULE.at_angle(-20.0), **fields)
            for policy in (remote, peer.policy)
        ]
    assert_same_choices(far[0], near[0])
    assert far[1:] == near[1:]


async def test_neighbours_are_asked_for_side_by_side_and_chosen_among(
    peer: Peer, engine: Engine
) -> None:
    rewards, direction = EngineRewards(engine), RULE.at_angle(-20.0)
    fields: dict[str, Any] = {"steering": "neighbours", "direction": direction}
    async with remote_of(peer.url, rule=RULE) as remote:
        (best,), tokens, report = await steered_by(remote, rewards, n=1, **fields)
        all_five, same_tokens, _ = await steered_by(remote, rewards, n=5, **fields)
    assert_same_choices([best], all_five[:1])
    assert tokens == same_tokens
    assert report.samples == 5
    scores = [reward.direction_score for _, _, reward in all_five]
    assert scores == sorted(scores, reverse=True)


async def test_our_server_steers_with_a_policy_that_is_elsewhere(
    peer: Peer, engine: Engine
) -> None:
    body = {
        "messages": [{"role": "user", "content": "Hello"}],
        "direction": {"helpfulness": 2.0, "verbosity": -1.0},
        "steering": "best_of",
        "best_of": 5,
        "max_completion_tokens": 12,
        "seed": 3,
    }
    engines = {"armorm": engine}
    async with remote_of(peer.url, rule=RULE) as remote:
        found = []
        for policy in (remote, peer.policy):
            async with client_of(app_of(policy, engines=engines)) as client:
                answer = await client.post("/v1/chat/completions", json=body)
                assert answer.status_code == 200, answer.text
                found.append(answer.json())
    far, near = found
    for one, other in zip(far["choices"], near["choices"], strict=True):
        assert_close(one.pop("reward"), other.pop("reward"))
    for part in ("choices", "usage", "steering", "system_fingerprint"):
        assert far[part] == near[part]
    assert far["model"] == "far"
    assert far["steering"]["samples"] == 5
