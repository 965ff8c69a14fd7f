from __future__ import annotations

import ast
import inspect
import json
import tomllib
from typing import Any, get_args

import pytest

from steerward.judges import (
    JudgeSettings,
    LanguageModelJudge,
    RewardThreshold,
    ServerLabels,
    from_settings,
    mixture_from_settings,
    model_settings,
    rule_settings,
)
from steerward.judges.sandbox import Limits
from steerward.protocol.errors import InvalidRequest

TOML = r"""
max_failure_rate = 0.2

[[judges]]
type = "exact_answer"
without_mark = "last_line"

[[judges]]
type = "numeric_answer"
absolute_tolerance = 1

[[judges]]
type = "length"
unit = "characters"
maximum = 100

[[judges]]
type = "keywords"
required = ["art"]
forbidden_column = "must_not"

[[judges]]
type = "pattern"
pattern = "\\d+"

[[judges]]
type = "language"
language = "en"

[[judges]]
type = "json_schema"
schema = '{"type": "object"}'

[[judges]]
type = "instruction_following"

[[judges]]
type = "code_tests"
cpu_s = 3
must_isolate = ["network"]

[[judges]]
type = "language_model"
template = "safety"
model = "guard"
url = "http://127.0.0.1:9000/v1"
api_key = "secret"
extra_body = { reward = false }

[[judges]]
type = "reward_threshold"
column = "steerward_safety"
at_least = 1
"""
TYPES = [one["type"] for one in tomllib.loads(TOML)["judges"]]


def steerward_safety(prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
    return [1.0] * len(completions)


COLUMNS = {"steerward_safety": steerward_safety}


def told(conversations: Any, labels: Any) -> list[tuple[float, ...] | None]:
    return [(0.9, 0.1)] * len(conversations)


def test_every_judge_can_be_written_in_toml_and_json() -> None:
    read = tomllib.loads(TOML)
    mixture = mixture_from_settings(read, columns=COLUMNS)
    names = [*TYPES[:-2], "safety", "steerward_safety"]
    assert mixture.names == names
    assert mixture_from_settings(json.loads(json.dumps(read)), columns=COLUMNS).names == names


def test_every_type_is_in_that_file() -> None:
    union = get_args(JudgeSettings)[0]
    found = [get_args(one.model_fields["type"].annotation)[0] for one in get_args(union)]
    assert sorted(found) == sorted(TYPES)


def test_judges_of_defaults_are_those_of_the_library() -> None:
    """Once, defaults that were copied from a slotted class were no numbers."""
    for kind in ("exact_answer", "numeric_answer", "instruction_following", "code_tests"):
        (judge,) = from_settings([{"type": kind}])
        assert judge == type(judge)()  # type: ignore[call-arg]
    (code,) = from_settings([{"type": "code_tests", "cpu_s": 3, "must_isolate": ["user"]}])
    assert code.limits == Limits(cpu_s=3)  # type: ignore[attr-defined]
    assert code.must_isolate == ("user",)  # type: ignore[attr-defined]


def test_models_come_from_a_server_or_this_process() -> None:
    own = {"text": "{completion}", "passing": "a", "failing": "b"}
    settings: dict[str, Any] = {"type": "language_model", "template": own, "model": "guard"}
    (local,) = from_settings([{**settings, "name": "mine"}], models={"guard": told})
    assert isinstance(local, LanguageModelJudge)
    assert local.judge(["p"], ["c"]) == [1]
    remote = {**settings, "name": "mine", "url": "http://127.0.0.1:9"}
    (asked,) = from_settings([remote])
    assert isinstance(asked, LanguageModelJudge)
    assert isinstance(asked.label_probabilities, ServerLabels)
    with pytest.raises(InvalidRequest, match="'guard' in this process"):
        from_settings([{**settings, "name": "mine"}])
    with pytest.raises(InvalidRequest, match="needs a name"):
        from_settings([settings], models={"guard": told})


def test_thresholds_find_their_column_by_name() -> None:
    settings = {"type": "reward_threshold", "column": "steerward_safety", "at_most": 0.5}
    (judge,) = from_settings([settings], columns=COLUMNS)
    assert isinstance(judge, RewardThreshold)
    assert judge.judge(["p"], ["c"]) == [0]
    with pytest.raises(InvalidRequest, match="no reward column 'steerward_safety'"):
        from_settings([settings])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"type": "size", "maximum": 1}, "length"),
        ({"type": "length", "most": 1}, "unknown key"),
        ({"type": "length", "maximum": -1}, "greater than or equal to 0"),
        ({"type": "length"}, "no limit"),
        ({"type": "code_tests", "must_isolate": ["everything"]}, "network"),
        ({"type": "language_model", "template": "kindness", "model": "m"}, "kindness"),
        ({}, "type"),
    ],
    ids=["type", "key", "range", "no rule", "isolation", "template", "nothing"],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        from_settings([settings])
    with pytest.raises(InvalidRequest, match="max_failure_rate"):
        mixture_from_settings({"judges": [], "max_failure_rate": 2.0})


@pytest.mark.parametrize("name", ["a/b", "line\u2028end", ""], ids=ascii)
@pytest.mark.parametrize("kind", ["exact_answer", "reward_threshold"])
def test_names_that_would_break_metrics_are_refused(kind: str, name: str) -> None:
    more = {"column": "c", "at_least": 1} if kind == "reward_threshold" else {}
    with pytest.raises(InvalidRequest, match="letters from a to z"):
        from_settings([{"type": kind, "name": name, **more}])


def test_a_mixture_has_a_bounded_number_of_judges() -> None:
    judges = [{"type": "exact_answer", "name": f"judge_{i}"} for i in range(33)]
    assert len(mixture_from_settings({"judges": judges[:32]}).names) == 32
    with pytest.raises(InvalidRequest, match="at most 32 .* not 33"):
        mixture_from_settings({"judges": judges})
    with pytest.raises(InvalidRequest, match="at most 32 .* not 33"):
        from_settings(judges)


def test_what_programs_must_have_isolated_can_be_given_up_on_purpose() -> None:
    (usual,) = from_settings([{"type": "code_tests"}])
    assert usual.must_isolate == ("network", "files", "processes")  # type: ignore[attr-defined]
    (open_to_all,) = from_settings([{"type": "code_tests", "must_isolate": []}])
    assert open_to_all.must_isolate == ()  # type: ignore[attr-defined]


def test_a_key_is_not_shown() -> None:
    settings = model_settings.LanguageModelSettings.model_validate(
        {"type": "language_model", "template": "safety", "model": "m", "api_key": "secret"}
    )
    assert "secret" not in repr(settings)


@pytest.mark.parametrize("module", [rule_settings, model_settings], ids=["rules", "models"])
def test_every_field_says_what_it_means(module: Any) -> None:
    for node in ast.parse(inspect.getsource(module)).body:
        cls = getattr(module, getattr(node, "name", ""), None)
        for name, field in getattr(cls, "model_fields", {}).items():
            assert name == "type" or field.description, f"{cls}.{name}"
