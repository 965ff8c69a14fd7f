"""Settings that no server could follow, or should, are refused before a job is queued."""

from __future__ import annotations

from typing import Any

import pytest

from steerward.jobs.align.checks import RULES, check_judges, check_objectives
from steerward.judges import rule_settings
from steerward.protocol.alignment import CgpoSettings, GrpoSettings
from steerward.protocol.errors import InvalidRequest, UnknownObjective
from steerward.protocol.fine_tuning import SETTINGS, AlignSettings, JobMethod
from steerward.protocol.rsf import RsfSettings

KNOWN = ("helpfulness", "verbosity")


def check(
    method: JobMethod,
    settings: dict[str, Any],
    *,
    has_score: bool = True,
    num_margins: int = 0,
) -> None:
    found = SETTINGS[method].model_validate(settings)
    assert not isinstance(found, RsfSettings)
    given: AlignSettings = found
    check_objectives(
        method,
        given,
        known=KNOWN,
        has_score=has_score,
        model="armorm",
        num_margins=num_margins,
    )


@pytest.mark.parametrize(
    ("method", "settings", "place"),
    [
        ("pama", {"weights": {"helpfulness": 1, "honesty": 1}}, "weights"),
        ("grpo", {"weights": {"helpfulness": 1}, "logged": ["honesty"]}, "logged"),
        ("cgpo", {"tasks": {"chat": {"reward": "honesty"}}}, "tasks.chat.reward"),
        ("modpo", {"margins": {"honesty": -1.0}}, "margins"),
        ("modpo", {"margins": {"helpfulness": 1}, "logged": ["honesty"]}, "logged"),
        ("mapl", {"logged": ["verbosity", "honesty"]}, "logged"),
    ],
)
def test_a_reward_that_nobody_gives_is_named_with_its_place(
    method: JobMethod, settings: dict[str, Any], place: str
) -> None:
    with pytest.raises(UnknownObjective, match="'honesty'; known: helpfulness, verb") as caught:
        check(method, settings)
    assert caught.value.param == f"method.{method}.{place}"


def test_a_score_is_refused_of_a_model_without_one() -> None:
    check("pama", {})
    check("grpo", {"weights": {"helpfulness": 1, "verbosity": -1}}, has_score=False)
    check("mapl", {}, has_score=False)
    with pytest.raises(InvalidRequest, match="no score of its own") as caught:
        check("pama", {}, has_score=False)
    assert caught.value.param == "method.pama.weights"


def test_margins_that_the_rows_bring_may_have_any_names() -> None:
    margins = {"honesty": 0.5, "brevity": -0.5}
    check("modpo", {"margins": margins, "logged": ["helpfulness"]}, num_margins=2)
    with pytest.raises(UnknownObjective, match="'clarity'") as caught:
        check("modpo", {"margins": margins, "logged": ["clarity"]}, num_margins=2)
    assert caught.value.param == "method.modpo.logged"
    with pytest.raises(InvalidRequest, match="2 margins are named, and each row .* of 3") as told:
        check("modpo", {"margins": margins}, num_margins=3)
    assert told.value.param == "method.modpo.margins"


@pytest.mark.parametrize(
    ("method", "settings"),
    [("cgpo", {}), ("modpo", {"margins": {"helpfulness": 1.0}})],
)
def test_an_objective_that_is_logged_twice_is_refused(
    method: JobMethod, settings: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest, match="'verbosity' stands twice in logged") as caught:
        check(method, {**settings, "logged": ["verbosity", "verbosity"]})
    assert caught.value.param == f"method.{method}.logged"


def judged(*judges: dict[str, Any]) -> CgpoSettings:
    return CgpoSettings.model_validate(
        {"tasks": {"chat": {"reward": "helpfulness", "judges": [*judges]}}}
    )


def test_rules_are_judges_of_jobs() -> None:
    check_judges(
        "cgpo",
        judged(
            {"type": "length", "maximum": 80},
            {"type": "keywords", "forbidden": ["sorry"]},
            {"type": "exact_answer"},
            {"type": "reward_threshold", "column": "helpfulness", "at_least": 0.5},
        ),
    )


@pytest.mark.parametrize("kind", ["code_tests", "language_model", "shell", None])
def test_judges_that_run_programs_or_call_servers_are_refused(kind: str | None) -> None:
    with pytest.raises(InvalidRequest, match="is no judge of jobs, which run no prog") as caught:
        check_judges(
            "cgpo", judged({"type": "length", "maximum": 3}, {"type": kind, "url": "http://x"})
        )
    assert caught.value.param == "method.cgpo.tasks.chat.judges[1].type"


def test_a_judge_whose_settings_are_wrong_is_told_with_its_task() -> None:
    with pytest.raises(InvalidRequest, match="at_most: unknown key") as caught:
        check_judges("cgpo", judged({"type": "length", "at_most": 3}))
    assert caught.value.param == "method.cgpo.tasks.chat.judges"


@pytest.mark.parametrize(
    "judge",
    [
        {"type": "pattern", "pattern": "(" * 5000 + ")" * 5000},
        {"type": "pattern", "pattern": "a{99999999999999999999}"},
        {"type": "reward_threshold", "column": "helpfulness", "at_least": float("nan")},
        {"type": "length", "maximum": float("inf")},
    ],
    ids=["deep", "far", "nan", "infinite"],
)
def test_a_judge_that_is_too_much_for_those_who_read_it_is_refused(judge: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_judges("cgpo", judged(judge))
    assert caught.value.param == "method.cgpo.tasks.chat.judges"


def test_every_rule_that_is_allowed_is_one() -> None:
    known = {
        one.model_fields["type"].annotation.__args__[0]  # pyright: ignore
        for one in vars(rule_settings).values()
        if isinstance(one, type)
        and issubclass(one, rule_settings.RuleSettings)
        and "type" in one.model_fields
    }
    assert known - {"code_tests"} == {*RULES} - {"reward_threshold"}


def test_rules_are_judged_like_judges_and_not_asked_of_the_reward_model() -> None:
    rules = {"short": {"type": "length", "maximum": 3}}
    settings = GrpoSettings(weights={"short": 1.0, "score": 1.0}, rules=rules)
    check_judges("grpo", settings)
    check_objectives("grpo", settings, known=["a"], has_score=True, model="m", num_margins=0)
    unsafe = settings.model_copy(update={"rules": {"short": {"type": "code_tests"}}})
    with pytest.raises(InvalidRequest, match="no judge of jobs") as refused:
        check_judges("grpo", unsafe)
    assert refused.value.param == "method.grpo.rules.short.type"
