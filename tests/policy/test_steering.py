"""What one direction does to real completions: told to the policy, chosen by, or both."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import nn

from steerward.config import EngineConfig
from steerward.engine.engine import Engine
from steerward.metrics import Metrics
from steerward.models.checkpoint import load_reward_model
from steerward.models.reward_model import RewardModel
from steerward.policy.generation import GenerationRequest, Piece, Prompt, Sampling
from steerward.policy.local.checkpoint import LocalCheckpoint
from steerward.policy.local.policy import LocalPolicy
from steerward.policy.steering import (
    Part,
    Reward,
    SteeredGeneration,
    SteeredPolicy,
    SteeringReport,
    SteeringRequest,
)
from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.errors import (
    DeadlineExceeded,
    InvalidDirection,
    InvalidRequest,
    NotFound,
    NotReady,
    UnknownObjective,
)
from steerward.protocol.scoring import ScoreRequest
from steerward.protocol.tokenization import TokenizeRequest
from steerward.server.rewards import EngineRewards
from tests.policy.conftest import make_policy, started, until
from tests.tolerances import SCORE_TOLERANCE

pytestmark = pytest.mark.anyio

TURNS = ({"role": "user", "content": "Hello, how are you?"},)
SAMPLING = Sampling(max_tokens=12, temperature=1.0, seed=3)
LONG = Sampling(max_tokens=200, temperature=0.0)


def at_angle(degrees: float) -> PreferenceDirection:
    return PreferenceDirection.from_angle(degrees, "helpfulness", "verbosity")


CONCISE = at_angle(-20.0)
TRUTHFUL = PreferenceDirection({"truthfulness": 1.0})
"""An objective of the reward model that the policy was not trained on."""


@dataclass
class Models:
    """A policy and the reward model that ranks its completions, joined as the server does it."""

    policy: LocalPolicy
    engine: Engine
    metrics: Metrics
    steered: SteeredPolicy

    def counted(self, name: str, **labels: str) -> float:
        return (
            self.metrics.registry.get_sample_value(
                f"steerward_{name}", {"model": "pocket", **labels}
            )
            or 0.0
        )

    @property
    def scoring_requests(self) -> float:
        return self.counted("stage_duration_seconds_count", stage="total")


@dataclass
class Answer:
    """All that was returned for one request."""

    parts: list[Part]
    generation: SteeredGeneration

    @property
    def report(self) -> SteeringReport:
        return self.generation.report

    @property
    def texts(self) -> list[str]:
        found = [""] * (1 + max(part.index for part in self.parts))
        for part in self.parts:
            found[part.index] += part.text
        return found

    @property
    def rewards(self) -> list[Reward]:
        by_index = {part.index: part.reward for part in self.parts if part.reward is not None}
        return [by_index[index] for index in range(len(self.texts))]


@pytest.fixture(scope="module")
def pocket() -> RewardModel:
    return load_reward_model("pocket", device="cpu")


@pytest.fixture
async def models(checkpoint: LocalCheckpoint, pocket: RewardModel) -> AsyncIterator[Models]:
    metrics = Metrics()
    # Without kept prompts each request computes its prompt.
    settings = EngineConfig(device="cpu", prefix_cache_bytes=0)
    engine = Engine(pocket, name="pocket", config=settings, metrics=metrics)
    engine.start()
    await engine.wait_until_ready()
    policy = await started(make_policy(checkpoint))
    yield Models(policy, engine, metrics, SteeredPolicy(policy, EngineRewards(engine)))
    policy.close()
    engine.close()


def ask(
    *, turns: Sequence[Mapping[str, str]] = TURNS, timeout_s: float = 60.0, **fields: Any
) -> SteeringRequest:
    given: dict[str, Any] = {"prompt": Prompt(tuple(turns)), "sampling": SAMPLING, **fields}
    return SteeringRequest(deadline=time.perf_counter() + timeout_s, **given)


async def answer_of(steered: SteeredPolicy, request: SteeringRequest) -> Answer:
    generation = await steered.begin(request)
    try:
        return Answer([part async for part in generation], generation)
    finally:
        await generation.aclose()


@dataclass
class Drawn:
    """Completions that the policy draws without any steering."""

    texts: list[str]
    num_tokens: int
    prompt_tokens: int


async def drawn_by_hand(
    policy: LocalPolicy, systems: Sequence[str | None], sampling: Sampling = SAMPLING
) -> Drawn:
    """Draw one completion for each system turn that a caller would have written."""
    prompts = [
        Prompt(TURNS if text is None else ({"role": "system", "content": text}, *TURNS))
        for text in systems
    ]
    deadline = time.perf_counter() + 60.0
    generation = await policy.begin(GenerationRequest(prompts, sampling, deadline))
    pieces: list[Piece] = [piece async for piece in generation]
    texts = [
        "".join(piece.text for piece in pieces if piece.index == index)
        for index in range(len(prompts))
    ]
    tokens = sum(piece.num_tokens for piece in pieces)
    return Drawn(texts, tokens, generation.prompt_tokens)


async def scored(
    engine: Engine, texts: Sequence[str], direction: PreferenceDirection | None = None
) -> list[dict[str, Any]]:
    body: dict[str, Any] = {"items": [{"prompt": list(TURNS), "candidates": list(texts)}]}
    if direction is not None:
        body["direction"] = dict(direction.components)
    found = await engine.score(ScoreRequest.model_validate(body))
    return found.answer["items"][0]["candidates"]


def ranked(texts: Sequence[str], candidates: Sequence[dict[str, Any]], by: str) -> list[str]:
    order = sorted(range(len(texts)), key=lambda index: -candidates[index][by])
    return [texts[index] for index in order]


def system_of(direction: PreferenceDirection) -> str:
    values = direction.components
    helpfulness, verbosity = (round(100 * values[n]) for n in ("helpfulness", "verbosity"))
    return f"Maximize helpfulness*{helpfulness} + verbosity*{verbosity}"


@contextmanager
def held(module: nn.Module) -> Iterator[threading.Event]:
    """Keep a device in its next forward pass; gives what is set when it is there."""
    release, is_held = threading.Event(), threading.Event()

    def hold(*_: Any) -> None:
        is_held.set()
        release.wait(30.0)

    hook = module.register_forward_pre_hook(hold)
    try:
        yield is_held
    finally:
        release.set()
        hook.remove()


def close_to(value: Any) -> Any:
    tolerance = SCORE_TOLERANCE[torch.float32]
    return None if value is None else pytest.approx(value, abs=tolerance, rel=tolerance)


def assert_equal_rewards(found: Sequence[Reward], expected: Sequence[Mapping[str, Any]]) -> None:
    for reward, candidate in zip(found, expected, strict=True):
        assert reward.rewards == close_to(candidate["rewards"])
        assert reward.score == close_to(candidate["score"])
        assert reward.direction_score == close_to(candidate.get("direction_score"))


async def test_prompt_mode_draws_what_the_same_system_turn_by_hand_draws(models: Models) -> None:
    answer = await answer_of(models.steered, ask(direction=CONCISE, steering="prompt", n=3))
    by_hand = await drawn_by_hand(models.policy, [system_of(CONCISE)] * 3)
    plain = await drawn_by_hand(models.policy, [None] * 3)
    assert answer.texts == by_hand.texts
    assert answer.texts != plain.texts
    report = answer.report
    assert (report.mode, report.mechanisms) == ("prompt", ("conditioning",))
    assert (report.rule, report.system) == ("tiny", system_of(CONCISE))
    assert report.direction == CONCISE.components
    assert report.reward_model == "pocket"
    assert report.warnings == ()


async def test_direction_stands_in_front_of_the_callers_own_system_turn(models: Models) -> None:
    turns = ({"role": "system", "content": "Be kind."}, *TURNS)
    answer = await answer_of(models.steered, ask(turns=turns, direction=CONCISE))
    written = f"{system_of(CONCISE)}\n\nBe kind."
    assert answer.report.system == written
    assert answer.texts == (await drawn_by_hand(models.policy, [written])).texts


async def test_rewards_without_steering_are_those_of_scoring_the_same_texts(
    models: Models,
) -> None:
    answer = await answer_of(models.steered, ask(n=3))
    assert answer.texts == (await drawn_by_hand(models.policy, [None] * 3)).texts
    assert_equal_rewards(answer.rewards, await scored(models.engine, answer.texts))
    assert (answer.report.mode, answer.report.mechanisms) == ("prompt", ())
    assert answer.generation.ranking is not None
    assert answer.generation.ranking.weight_version == models.engine.weight_version
    assert answer.generation.ranking.direction_scale is None


async def test_rewards_of_conditioned_completions_are_for_the_turns_as_they_came(
    models: Models,
) -> None:
    answer = await answer_of(models.steered, ask(n=2, direction=CONCISE))
    assert_equal_rewards(answer.rewards, await scored(models.engine, answer.texts, CONCISE))
    assert answer.generation.ranking is not None
    assert answer.generation.ranking.direction_scale == "standardised"


async def test_plain_completions_come_piece_by_piece_and_end_with_their_rewards(
    models: Models,
) -> None:
    answer = await answer_of(models.steered, ask(n=2))
    *pieces, first_end, second_end = answer.parts
    assert len(pieces) > 2
    assert {(piece.finish_reason, piece.reward) for piece in pieces} == {(None, None)}
    assert [first_end.index, second_end.index] == [0, 1]
    for end in (first_end, second_end):
        assert end.finish_reason in ("stop", "length")
        assert end.reward is not None


async def test_nothing_is_scored_where_no_rewards_are_wanted(models: Models) -> None:
    answer = await answer_of(models.steered, ask(n=2, with_rewards=False))
    assert models.scoring_requests == 0
    assert all(part.reward is None for part in answer.parts)
    ends = [part for part in answer.parts if part.finish_reason is not None]
    assert sorted(end.index for end in ends) == [0, 1]
    assert answer.report.reward_model is None


@pytest.mark.parametrize("n", [1, 3, 6])
async def test_best_of_returns_the_best_of_exactly_the_samples_drawn(
    models: Models, n: int
) -> None:
    request = ask(n=n, best_of=6, steering="best_of", direction=CONCISE)
    answer = await answer_of(models.steered, request)
    samples = await drawn_by_hand(models.policy, [system_of(CONCISE)] * 6)
    candidates = await scored(models.engine, samples.texts, CONCISE)
    expected = ranked(samples.texts, candidates, by="direction_score")
    assert len(set(samples.texts)) > 3
    assert answer.texts == expected[:n]
    by_text = dict(zip(samples.texts, candidates, strict=True))
    assert_equal_rewards(answer.rewards, [by_text[text] for text in answer.texts])
    assert answer.report.mechanisms == ("conditioning", "selection")
    assert answer.report.samples == 6
    assert answer.report.warnings == ()
    # Each choice is one part: nothing can be returned before all are scored.
    assert [part.index for part in answer.parts] == list(range(n))


async def test_best_of_without_a_direction_chooses_by_the_reward_models_own_score(
    models: Models,
) -> None:
    answer = await answer_of(models.steered, ask(n=2, best_of=6))
    samples = await drawn_by_hand(models.policy, [None] * 6)
    candidates = await scored(models.engine, samples.texts)
    assert answer.texts == ranked(samples.texts, candidates, by="score")[:2]
    assert (answer.report.mode, answer.report.mechanisms) == ("best_of", ("selection",))


async def test_equal_samples_each_have_their_turn(models: Models) -> None:
    """Completions of one token: several are equal, and so are their scores."""
    sampling = replace(SAMPLING, max_tokens=1, top_p=0.5)
    request = ask(n=12, best_of=12, sampling=sampling, steering="best_of", direction=CONCISE)
    answer = await answer_of(models.steered, request)
    samples = await drawn_by_hand(models.policy, [system_of(CONCISE)] * 12, sampling)
    assert len(set(samples.texts)) < 12
    assert sorted(answer.texts) == sorted(samples.texts)
    scores = [reward.direction_score for reward in answer.rewards]
    assert scores == sorted(scores, key=lambda score: -(score or 0.0))
    assert (await answer_of(models.steered, request)).texts == answer.texts


async def test_greedy_samples_are_all_the_same_and_the_report_says_so(models: Models) -> None:
    sampling = replace(SAMPLING, temperature=0.0)
    request = ask(n=2, best_of=3, sampling=sampling, steering="best_of", direction=CONCISE)
    answer = await answer_of(models.steered, request)
    (by_hand,) = (await drawn_by_hand(models.policy, [system_of(CONCISE)], sampling)).texts
    assert answer.texts == [by_hand] * 2
    (warning,) = answer.report.warnings
    assert "temperature 0" in warning


async def test_chosen_completions_keep_their_logprobs(models: Models) -> None:
    sampling = replace(SAMPLING, top_logprobs=1)
    request = ask(n=2, best_of=4, sampling=sampling, direction=CONCISE)
    answer = await answer_of(models.steered, request)
    for part in answer.parts:
        assert 0 < len(part.logprobs) <= 12
        spelled = b"".join(one.chosen.bytes for one in part.logprobs)
        assert spelled.decode(errors="replace").startswith(part.text)


@pytest.mark.parametrize("steering", ["prompt", "best_of", "neighbours"])
async def test_all_completions_are_scored_in_one_request_that_reads_the_prompt_once(
    models: Models, steering: str
) -> None:
    counts = {"n": 5} if steering == "prompt" else {"n": 1}
    if steering == "best_of":
        counts["best_of"] = 5
    await answer_of(models.steered, ask(direction=CONCISE, steering=steering, **counts))
    assert models.scoring_requests == 1
    assert models.counted("batch_tokens_count") == 1
    computed = models.counted("computed_tokens_total")
    if steering == "neighbours":
        texts = (await by_hand_neighbours(models)).texts
    else:
        texts = (await drawn_by_hand(models.policy, [system_of(CONCISE)] * 5)).texts
    item = {"prompt": list(TURNS), "candidates": texts}
    tokens = await models.engine.tokenize(TokenizeRequest.model_validate({"items": [item]}))
    (read,) = tokens["items"]
    assert computed == read["prompt_tokens"] + sum(read["candidate_tokens"])
    assert models.counted("prefix_tokens_saved_total") == 4 * read["prompt_tokens"]


async def test_tokens_of_all_samples_are_counted_and_those_of_the_prompt_once(
    models: Models,
) -> None:
    request = ask(n=1, best_of=5, steering="best_of", direction=CONCISE)
    answer = await answer_of(models.steered, request)
    samples = await drawn_by_hand(models.policy, [system_of(CONCISE)] * 5)
    single = await drawn_by_hand(models.policy, [system_of(CONCISE)])
    assert answer.generation.completion_tokens == samples.num_tokens > 12
    assert answer.generation.prompt_tokens == samples.prompt_tokens == single.prompt_tokens


NEAR = (-45.0, -32.5, -20.0, -5.0, 10.0)
"""Of 30 degrees around the target, what lies in the cone; more of it on the right."""


async def by_hand_neighbours(models: Models) -> Drawn:
    return await drawn_by_hand(models.policy, [system_of(at_angle(angle)) for angle in NEAR])


@pytest.mark.parametrize("n", [1, 5])
async def test_neighbours_are_drawn_around_the_target_and_chosen_by_it(
    models: Models, n: int
) -> None:
    answer = await answer_of(models.steered, ask(n=n, direction=CONCISE, steering="neighbours"))
    samples = await by_hand_neighbours(models)
    candidates = await scored(models.engine, samples.texts, CONCISE)
    assert answer.texts == ranked(samples.texts, candidates, by="direction_score")[:n]
    report = answer.report
    assert (report.mode, report.mechanisms) == ("neighbours", ("conditioning", "selection"))
    assert report.samples == 5
    assert [pytest.approx(near) for near in report.neighbours] == [
        at_angle(angle).components for angle in NEAR
    ]
    assert answer.generation.completion_tokens == samples.num_tokens
    assert answer.generation.prompt_tokens == samples.prompt_tokens


@pytest.mark.parametrize(
    ("fields", "mode", "mechanisms"),
    [
        ({}, "prompt", ()),
        ({"direction": CONCISE}, "prompt", ("conditioning",)),
        ({"best_of": 3}, "best_of", ("selection",)),
        ({"direction": CONCISE, "best_of": 3}, "best_of", ("conditioning", "selection")),
        ({"direction": TRUTHFUL}, "best_of", ("selection",)),
    ],
    ids=["nothing", "direction", "best_of", "both", "untrained"],
)
async def test_auto_does_what_the_models_can(
    models: Models, fields: dict[str, Any], mode: str, mechanisms: tuple[str, ...]
) -> None:
    answer = await answer_of(models.steered, ask(**fields))
    assert (answer.report.mode, answer.report.mechanisms) == (mode, mechanisms)
    samples = answer.report.samples
    system = system_of(CONCISE) if "conditioning" in mechanisms else None
    drawn = await drawn_by_hand(models.policy, [system] * samples)
    candidates = await scored(models.engine, drawn.texts, fields.get("direction"))
    by = "direction_score" if "direction" in fields else "score"
    best = ranked(drawn.texts, candidates, by=by)[0]
    assert answer.texts == ([best] if mode == "best_of" else drawn.texts)


async def test_what_the_policy_was_not_trained_on_steers_by_selection_and_the_report_says_so(
    models: Models,
) -> None:
    mixed = PreferenceDirection.from_mapping({"helpfulness": 1.0, "truthfulness": 2.0})
    answer = await answer_of(models.steered, ask(direction=mixed, n=2))
    samples = await drawn_by_hand(models.policy, [None] * 8)
    candidates = await scored(models.engine, samples.texts, mixed)
    assert answer.texts == ranked(samples.texts, candidates, by="direction_score")[:2]
    report = answer.report
    assert (report.mode, report.mechanisms, report.samples) == ("best_of", ("selection",), 8)
    assert (report.rule, report.system) == (None, None)
    (warning,) = report.warnings
    assert "trained on no other objectives than helpfulness, verbosity" in warning
    with pytest.raises(UnknownObjective, match="steering: best_of"):
        await models.steered.begin(ask(direction=mixed, steering="prompt"))


async def test_text_without_turns_steers_by_selection(models: Models) -> None:
    request = replace(ask(direction=CONCISE, best_of=4), prompt=Prompt(text="Tell me about"))
    answer = await answer_of(models.steered, request)
    assert answer.report.mechanisms == ("selection",)
    assert any("one user turn" in warning for warning in answer.report.warnings)


async def test_without_a_reward_model_only_the_policy_can_steer(models: Models) -> None:
    alone = SteeredPolicy(models.policy, None)
    answer = await answer_of(alone, ask(direction=CONCISE, n=2))
    assert answer.texts == (await drawn_by_hand(models.policy, [system_of(CONCISE)] * 2)).texts
    assert answer.report.mechanisms == ("conditioning",)
    assert answer.generation.ranking is None
    for fields, param in [
        ({"best_of": 4}, "best_of"),
        ({"steering": "best_of"}, "steering"),
        ({"steering": "neighbours", "direction": CONCISE}, "steering"),
        ({"direction": TRUTHFUL}, "steering"),
    ]:
        with pytest.raises(InvalidRequest, match="serve one beside it, or leave") as caught:
            await alone.begin(ask(**fields))
        assert caught.value.param == param


@pytest.mark.parametrize("steering", ["auto", "prompt", "best_of", "neighbours"])
async def test_an_objective_that_nobody_knows_is_refused_before_anything_is_drawn(
    models: Models, steering: str
) -> None:
    charming = PreferenceDirection({"charm": 1.0})
    with pytest.raises(UnknownObjective, match="helpfulness.*verbosity") as caught:
        await models.steered.begin(ask(direction=charming, steering=steering))
    assert caught.value.param == "direction.charm"
    card = models.policy.card()
    assert card.running == card.waiting == 0
    assert models.scoring_requests == 0


@pytest.mark.parametrize("steering", ["auto", "prompt"])
async def test_outside_the_cone_is_refused_unless_forced(models: Models, steering: str) -> None:
    outside = at_angle(-70.0)
    with pytest.raises(InvalidDirection, match=r"70\.0 degrees.*limit 45.*set force.*best_of"):
        await models.steered.begin(ask(direction=outside, steering=steering))
    answer = await answer_of(models.steered, ask(direction=outside, steering=steering, force=True))
    assert answer.texts == (await drawn_by_hand(models.policy, [system_of(outside)])).texts
    (warning,) = answer.report.warnings
    assert "outside the trained cone of 45" in warning


async def test_outside_the_cone_selection_still_steers(models: Models) -> None:
    outside = at_angle(-70.0)
    answer = await answer_of(models.steered, ask(direction=outside, steering="best_of", best_of=4))
    samples = await drawn_by_hand(models.policy, [None] * 4)
    candidates = await scored(models.engine, samples.texts, outside)
    assert answer.texts == ranked(samples.texts, candidates, by="direction_score")[:1]
    assert answer.report.mechanisms == ("selection",)
    assert "limit 45" in answer.report.warnings[0]


async def test_an_adapter_that_does_not_exist_is_refused(models: Models) -> None:
    with pytest.raises(NotFound, match="absent"):
        await models.steered.begin(ask(adapter="absent", direction=CONCISE))


async def given_up(generation: SteeredGeneration, reading: asyncio.Task[Any]) -> None:
    """Do what a server does when its client has gone."""
    reading.cancel()
    with suppress(asyncio.CancelledError):
        await reading
    await generation.aclose()
    await generation.aclose()


async def reader_of(generation: SteeredGeneration) -> list[Part]:
    return [part async for part in generation]


async def read_into(parts: list[Part], generation: SteeredGeneration) -> None:
    async for part in generation:
        parts.append(part)


@pytest.mark.parametrize(
    "fields",
    [{"n": 8}, {"best_of": 8}, {"steering": "neighbours", "num_neighbours": 8}],
    ids=["prompt", "best_of", "neighbours"],
)
async def test_closing_in_mid_generation_frees_all_places_at_once(
    models: Models, fields: dict[str, Any]
) -> None:
    generation = await models.steered.begin(ask(direction=CONCISE, sampling=LONG, **fields))
    reading = asyncio.create_task(reader_of(generation))
    await until(lambda: models.policy.card().running == 8)
    behind = asyncio.create_task(answer_of(models.steered, ask()))
    await until(lambda: models.policy.card().waiting == 1)
    await given_up(generation, reading)
    assert (await asyncio.wait_for(behind, 5.0)).texts
    await until(lambda: models.policy.card().running == 0)
    # Only the other request was scored.
    assert models.scoring_requests == 1
    assert generation.ranking is None


async def closed_by_cancelling(generation: SteeredGeneration, reading: asyncio.Task[Any]) -> None:
    await given_up(generation, reading)
    assert reading.cancelled()


async def closed_beside_the_reader(
    generation: SteeredGeneration, reading: asyncio.Task[list[Part]]
) -> None:
    await generation.aclose()
    parts = await asyncio.wait_for(reading, 5.0)
    assert all(part.finish_reason is None for part in parts)


@pytest.mark.parametrize("close", [closed_by_cancelling, closed_beside_the_reader])
@pytest.mark.parametrize("fields", [{"n": 3}, {"best_of": 3}], ids=["prompt", "best_of"])
async def test_closing_in_mid_ranking_takes_the_scoring_back(
    models: Models,
    fields: dict[str, Any],
    close: Callable[[SteeredGeneration, asyncio.Task[Any]], Awaitable[None]],
) -> None:
    with held(models.engine.model.backbone) as is_held:
        # The device has this one; what is asked for then waits in the queue.
        before = asyncio.create_task(scored(models.engine, ["Fine."]))
        await until(is_held.is_set)
        generation = await models.steered.begin(ask(direction=CONCISE, **fields))
        reading = asyncio.create_task(reader_of(generation))
        await until(lambda: models.engine.queued_tokens > 0)
        assert models.policy.card().running == 0
        await close(generation, reading)
        await until(lambda: models.engine.queued_tokens == 0)
    await before
    await scored(models.engine, ["Fine."])
    assert models.counted("candidates_total") == 2
    assert generation.ranking is None
    assert generation.completion_tokens > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"best_of": 3}, "could not be ranked: no scores after"),
        ({"n": 3}, "could not be scored: no scores after.*send reward: false"),
    ],
    ids=["best_of", "prompt"],
)
async def test_deadline_in_mid_ranking_is_an_error_that_says_what_was_missing(
    models: Models, fields: dict[str, Any], message: str
) -> None:
    with held(models.engine.model.backbone):
        generation = await models.steered.begin(ask(timeout_s=0.5, direction=CONCISE, **fields))
        parts: list[Part] = []
        with pytest.raises(DeadlineExceeded, match=message):
            await read_into(parts, generation)
        await generation.aclose()
    assert all(part.finish_reason is None for part in parts)
    assert bool(parts) == ("n" in fields)
    assert (await answer_of(models.steered, ask(direction=CONCISE, **fields))).rewards


async def test_deadline_that_the_completions_used_up_leaves_no_time_to_score(
    models: Models,
) -> None:
    rewards = EngineRewards(models.engine)
    with pytest.raises(DeadlineExceeded, match="before the completions were scored"):
        await rewards.rank(TURNS, ["Fine."], direction=None, deadline=time.perf_counter())
    assert models.scoring_requests == 0


async def test_reward_model_that_stops_in_between_is_an_error_and_no_made_up_choice(
    models: Models,
) -> None:
    generation = await models.steered.begin(ask(best_of=3, direction=CONCISE))
    models.engine.close()
    with pytest.raises(NotReady, match="could not be ranked: the server has stopped"):
        await reader_of(generation)
    await generation.aclose()
    assert generation.ranking is None
    answer = await answer_of(models.steered, ask(with_rewards=False, direction=CONCISE))
    assert answer.texts
