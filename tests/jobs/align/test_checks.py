"""Settings that no server could follow, or should, are refused before a job is queued."""

from __future__ import annotations

from typing import Any

import pytest

from steerward.jobs.align.checks import RULES, check_judges, check_objectives
from steerward.judges import rule_settings
from steerward.protocol.alignment import CgpoSettings
from steerward.protocol.errors import InvalidRequest, UnknownObjective
from steerward.protocol.fine_tuning import SETTINGS, AlignSettings, JobMethod
from steerward.protocol.rsf import RsfSettings

KNOWN = ("helpfulness", "verbosity")


def check(method: JobMethod, settings: dict[str, Any], *, has_score: bool = True) -> None:
    found = SETTINGS[method].model_validate(settings)
    assert not isinstance(found, RsfSettings)
    given: AlignSettings = found
    check_objectives(method, given, known=KNOWN, has_score=has_score, model="armorm")


@pytest.mark.parametrize(
    ("method", "settings", "place"),
    [
        ("pama", {"weights": {"helpfulness": 1, "honesty": 1}}, "weights"),
        ("grpo", {"weights": {"helpfulness": 1}, "logged": ["honesty"]}, "logged"),
        ("cgpo", {"tasks": {"chat": {"reward": "honesty"}}}, "tasks.chat.reward"),
        ("modpo", {"margins": {"honesty": -1.0}}, "margins"),
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
    with pytest.raises(InvalidRequest, match="no score of its own") as caught:
        check("pama", {}, has_score=False)
    assert caught.value.param == "method.pama.weights"


def judged(*judges: dict[str, Any]) -> CgpoSettings:
    return CgpoSettings.model_validate(
        {"tasks": {"chat": {"reward": "helpfulness", "judges": [*judges]}}}
    )


def test_rules_are_judges_of_jobs() -> None:
    check_judges(
        judged(
            {"type": "length", "maximum": 80},
            {"type": "keywords", "forbidden": ["sorry"]},
            {"type": "exact_answer"},
            {"type": "reward_threshold", "column": "helpfulness", "at_least": 0.5},
        )
    )


@pytest.mark.parametrize("kind", ["code_tests", "language_model", "shell", None])
def test_judges_that_run_programs_or_call_servers_are_refused(kind: str | None) -> None:
    with pytest.raises(InvalidRequest, match="is no judge of jobs, which run no prog") as caught:
        check_judges(judged({"type": "length", "maximum": 3}, {"type": kind, "url": "http://x"}))
    assert caught.value.param == "method.cgpo.tasks.chat.judges[1].type"


def test_a_judge_whose_settings_are_wrong_is_told_with_its_task() -> None:
    with pytest.raises(InvalidRequest, match="maxium: unknown key") as caught:
        check_judges(judged({"type": "length", "maxium": 3}))
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
