"""What each kind of request comes to, and what is refused before a token is drawn."""

from __future__ import annotations

from typing import Any

import pytest

from steerward.policy.case import RewardModelNames
from steerward.policy.generation import Prompt, Sampling
from steerward.policy.plan import MAX_SAMPLES, Plan, make_plan
from steerward.policy.steering_types import SteeringRequest
from steerward.protocol.conditioning import DPA_V1, ConditioningRule
from steerward.protocol.directions import PreferenceDirection
from steerward.protocol.errors import InvalidDirection, InvalidRequest, UnknownObjective

HELPSTEER = RewardModelNames("armorm", ("helpsteer-helpfulness", "helpsteer-verbosity", "honesty"))
TURNS = ({"role": "user", "content": "Tell me about rainbows."},)
AT_15 = DPA_V1.at_angle(-15)
HONEST = PreferenceDirection({"honesty": 1.0})


def plan(
    *,
    rule: ConditioningRule | None = DPA_V1,
    reward_model: RewardModelNames | None = HELPSTEER,
    prompt: Prompt | None = None,
    sampling: Sampling | None = None,
    **fields: Any,
) -> Plan:
    request = SteeringRequest(
        prompt=prompt or Prompt(TURNS), sampling=sampling or Sampling(), deadline=0.0, **fields
    )
    return make_plan(request, policy="p", rule=rule, reward_model=reward_model)


def system_of(direction: PreferenceDirection) -> str:
    return DPA_V1.condition(direction, force=True).system


def test_without_a_direction_generation_is_plain() -> None:
    made = plan(n=3)
    assert made.prompts == (Prompt(TURNS),) * 3
    assert not made.selects
    assert made.reward_direction is None
    report = made.report
    assert (report.mode, report.mechanisms, report.samples) == ("prompt", (), 3)
    assert (report.direction, report.rule, report.system) == (None, None, None)
    assert report.warnings == ()


def test_the_policy_reads_a_direction_that_its_rule_covers() -> None:
    made = plan(direction=AT_15, n=2)
    assert made.prompts[0] == made.prompts[1]
    assert made.prompts[0].messages == ({"role": "system", "content": system_of(AT_15)}, *TURNS)
    report = made.report
    assert (report.mode, report.mechanisms) == ("prompt", ("conditioning",))
    assert (report.rule, report.system) == ("dpa-v1", system_of(AT_15))
    assert report.direction == AT_15.components


def test_the_reward_model_reads_the_turns_as_they_came_and_its_own_names() -> None:
    made = plan(direction=AT_15)
    assert made.conversation == TURNS
    assert made.reward_direction is not None
    assert made.reward_direction.components == {
        "helpsteer-helpfulness": AT_15.components["helpfulness"],
        "helpsteer-verbosity": AT_15.components["verbosity"],
    }
    assert made.report.reward_model == "armorm"


def test_names_that_the_reward_model_has_itself_are_kept() -> None:
    own = RewardModelNames("own", ("helpfulness", "verbosity", "helpsteer-helpfulness"))
    made = plan(direction=AT_15, reward_model=own)
    assert made.reward_direction == AT_15


@pytest.mark.parametrize(
    ("own", "expected"),
    [("Answer in verse.", "{}\n\nAnswer in verse."), ("", "{}"), (" \n", "{}")],
    ids=["text", "empty", "blank"],
)
def test_conditioning_stands_in_front_of_the_system_turn(own: str, expected: str) -> None:
    prompt = Prompt(({"role": "system", "content": own}, *TURNS))
    made = plan(direction=AT_15, prompt=prompt)
    system = expected.format(system_of(AT_15))
    assert made.prompts[0].messages == ({"role": "system", "content": system}, *TURNS)
    assert made.report.system == system
    assert made.conversation == prompt.messages


def test_nothing_is_scored_where_nobody_wants_it_or_can() -> None:
    for made in (plan(with_rewards=False), plan(reward_model=None)):
        assert made.conversation is None
        assert made.report.reward_model is None


def test_rewards_without_the_directions_objective_say_so() -> None:
    short = RewardModelNames("short", ("quality",))
    made = plan(direction=AT_15, reward_model=short)
    assert made.conversation is not None
    assert made.reward_direction is None
    (warning,) = made.report.warnings
    assert "no direction_score" in warning
    assert "it has quality" in warning


def test_best_of_conditions_and_selects() -> None:
    made = plan(direction=AT_15, steering="best_of", n=2)
    assert made.selects
    assert made.num_returned == 2
    assert len(made.prompts) == 8
    assert made.prompts[0].messages[0]["content"] == system_of(AT_15)
    assert made.report.mechanisms == ("conditioning", "selection")
    assert made.report.warnings == ()


def test_best_of_defaults_to_no_less_than_n() -> None:
    assert len(plan(steering="best_of", n=11).prompts) == 11


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"direction": DPA_V1.at_angle(-60)}, "60.0 degrees from the axis.*limit 45"),
        ({"direction": HONEST}, "no other objectives than helpfulness, verbosity"),
        ({"rule": None, "direction": HONEST}, "not trained to read a direction"),
        ({"prompt": Prompt(text="Once")}, "raw text prompt"),
    ],
    ids=["outside", "uncovered", "no rule", "text"],
)
def test_best_of_without_conditioning_says_why(changed: dict[str, Any], reason: str) -> None:
    made = plan(**{"direction": AT_15, "steering": "best_of", **changed})
    assert made.report.mechanisms == ("selection",)
    assert (made.report.rule, made.report.system) == (None, None)
    assert made.prompts[0] == changed.get("prompt", Prompt(TURNS))
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(made.report.warnings[0])
    assert "chosen by it" in made.report.warnings[0]


def test_best_of_conditions_outside_the_cone_if_forced() -> None:
    made = plan(direction=DPA_V1.at_angle(-60), steering="best_of", force=True)
    assert made.report.mechanisms == ("conditioning", "selection")
    assert "outside the trained cone" in made.report.warnings[0]


def test_a_choice_of_equal_samples_is_warned_of() -> None:
    made = plan(steering="best_of", sampling=Sampling(temperature=0.0))
    assert "temperature 0" in made.report.warnings[0]


@pytest.mark.parametrize(
    ("fields", "mode"),
    [
        ({}, "prompt"),
        ({"n": 2, "best_of": 2}, "prompt"),
        ({"best_of": 4}, "best_of"),
        ({"direction": AT_15}, "prompt"),
        ({"direction": AT_15, "best_of": 4}, "best_of"),
        ({"direction": HONEST}, "best_of"),
        ({"direction": AT_15, "rule": None}, "best_of"),
        ({"direction": AT_15, "prompt": Prompt(text="Once")}, "best_of"),
    ],
)
def test_auto_comes_to_what_is_there(fields: dict[str, Any], mode: str) -> None:
    # A policy without a rule knows no other names for the reward model's objectives.
    reward_model = RewardModelNames("own", ("helpfulness", "verbosity", "honesty"))
    made = plan(reward_model=reward_model, **fields)
    assert made.report.mode == mode
    assert made.selects == (mode == "best_of")


def test_neighbours_differ_by_system_turn_and_the_target_chooses() -> None:
    made = plan(direction=AT_15, steering="neighbours")
    near = [DPA_V1.at_angle(angle) for angle in (-45, -30, -15, 0, 15)]
    assert [p.messages[0]["content"] for p in made.prompts] == [system_of(d) for d in near]
    assert all(prompt.messages[1:] == TURNS for prompt in made.prompts)
    assert made.reward_direction == DPA_V1.reward_direction(AT_15)
    report = made.report
    assert (report.mode, report.mechanisms) == ("neighbours", ("conditioning", "selection"))
    assert (report.samples, report.system) == (5, system_of(AT_15))
    assert [list(components.values()) for components in report.neighbours] == [
        pytest.approx(list(direction.components.values())) for direction in near
    ]
    # Those on the side without training, of which there is one.
    (warning,) = report.warnings
    assert warning.startswith("1 of 5 neighbours: 15.0 degrees")


def test_an_even_number_of_neighbours_leaves_out_the_target() -> None:
    made = plan(direction=AT_15, steering="neighbours", num_neighbours=4)
    assert made.report.system is None
    assert made.report.rule == "dpa-v1"


def test_text_is_judged_as_a_user_turn() -> None:
    made = plan(prompt=Prompt(text="Once upon a time"))
    assert made.conversation == ({"role": "user", "content": "Once upon a time"},)
    assert made.report.warnings == ("the reward model read the prompt text as one user turn",)


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"n": 0}, "n", "give 1 to"),
        ({"n": MAX_SAMPLES + 1}, "n", "give 1 to"),
        ({"n": 3, "best_of": 2}, "best_of", "n 3.*give 3 to"),
        ({"best_of": MAX_SAMPLES + 1}, "best_of", "give 1 to"),
        ({"best_of": 2, "steering": "prompt"}, "best_of", "steering: best_of"),
        (
            {"best_of": 2, "steering": "neighbours", "direction": AT_15},
            "best_of",
            "num_neighbours",
        ),
        ({"steering": "best_of", "reward_model": None}, "steering", "needs a reward model"),
        ({"best_of": 2, "reward_model": None}, "best_of", "needs a reward model"),
        (
            {"direction": HONEST, "reward_model": None},
            "steering",
            "leave best_of and direction out",
        ),
        ({"steering": "neighbours"}, "direction", "needs a direction"),
        (
            {"steering": "neighbours", "direction": AT_15, "reward_model": None},
            "steering",
            "needs a reward model",
        ),
        (
            {"steering": "neighbours", "direction": AT_15, "rule": None},
            "steering",
            "not trained to read",
        ),
        (
            {"steering": "neighbours", "direction": AT_15, "n": 6},
            "num_neighbours",
            "5 and n 6",
        ),
        (
            {"steering": "neighbours", "direction": AT_15, "neighbour_deg": 0.0},
            "neighbour_angle",
            "at most 90",
        ),
        (
            {"steering": "neighbours", "direction": AT_15, "neighbour_deg": 91.0},
            "neighbour_angle",
            "at most 90",
        ),
        ({"steering": "prompt", "direction": AT_15, "rule": None}, "steering", "best_of"),
        (
            {"steering": "prompt", "direction": AT_15, "prompt": Prompt(text="Once")},
            "steering",
            "raw text prompt",
        ),
        (
            {"prompt": Prompt(({"role": "system", "content": "Be brief."},))},
            "messages",
            "no user turn.*reward: false",
        ),
        ({"prompt": Prompt(text=" ")}, "prompt", "reward: false"),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_way_out(
    fields: dict[str, Any], param: str, message: str
) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        plan(**fields)
    assert caught.value.param == param


def test_an_objective_that_nobody_has_is_refused_with_the_known_ones() -> None:
    direction = PreferenceDirection({"charm": 1.0})
    with pytest.raises(UnknownObjective, match="helpsteer-verbosity, honesty") as caught:
        plan(direction=direction)
    assert caught.value.param == "direction.charm"
    with pytest.raises(UnknownObjective, match="helpfulness, verbosity"):
        plan(direction=direction, steering="prompt")
    with pytest.raises(UnknownObjective):
        plan(direction=HONEST, steering="neighbours")


def test_prompt_outside_the_cone_is_refused_unless_forced() -> None:
    outside = DPA_V1.at_angle(-60)
    with pytest.raises(InvalidDirection, match="best_of"):
        plan(direction=outside)
    (warning,) = plan(direction=outside, force=True).report.warnings
    assert "outside the trained cone" in warning


def test_one_objective_by_two_names_is_refused() -> None:
    twice = PreferenceDirection({"helpfulness": 0.6, "helpsteer-helpfulness": 0.8})
    with pytest.raises(InvalidDirection, match="names of one objective") as caught:
        plan(direction=twice)
    assert caught.value.param == "direction.helpsteer-helpfulness"
