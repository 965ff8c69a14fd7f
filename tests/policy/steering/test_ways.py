"""Neighbours, what `auto` comes to, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from steerward.policy.generation import Prompt
from steerward.policy.steering import (
    SteeredPolicy,
)
from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.errors import (
    InvalidDirection,
    InvalidRequest,
    NotFound,
    UnknownObjective,
)
from tests.policy.steering.models import (
    CONCISE,
    NEAR,
    TRUTHFUL,
    Models,
    answer_of,
    ask,
    at_angle,
    by_hand_neighbours,
    drawn_by_hand,
    ranked,
    scored,
    system_of,
)

pytestmark = pytest.mark.anyio


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


async def test_a_variant_that_does_not_exist_is_refused(models: Models) -> None:
    with pytest.raises(NotFound, match="absent"):
        await models.steered.begin(ask(variant="absent", direction=CONCISE))
