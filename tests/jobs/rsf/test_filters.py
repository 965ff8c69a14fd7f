"""Completions that are left out, and why; patterns that cannot be used."""

from __future__ import annotations

import pytest

from steerward.jobs.rsf.filters import FILTER_REASONS, Filters
from steerward.protocol.errors import InvalidRequest
from steerward.protocol.rsf import RsfSettings

GOOD = "Sunlight splits in drops of rain."


def why_not(
    text: str, *, tokens: int | None = 9, is_finished: bool = True, **fields: object
) -> str | None:
    filters = Filters(RsfSettings.model_validate(fields))
    return filters.why_not(text, tokens=tokens, is_finished=is_finished)


def test_a_good_completion_is_not_left_out() -> None:
    assert why_not(GOOD) is None


@pytest.mark.parametrize(
    ("reason", "given"),
    [
        ("empty", {"text": " \n"}),
        ("unfinished", {"text": GOOD, "is_finished": False}),
        ("too_short", {"text": GOOD, "tokens": 1}),
        ("too_short", {"text": "Rain.", "tokens": None}),
        ("repetitive", {"text": "yes it is " * 10}),
        ("no_match", {"text": GOOD, "must_match": r"\d"}),
        ("forbidden_match", {"text": GOOD, "must_not_match": "(?i)sunlight"}),
    ],
)
def test_reasons(reason: str, given: dict[str, object]) -> None:
    assert why_not(**given) == reason  # type: ignore[arg-type]
    assert reason in FILTER_REASONS


def test_filters_that_are_off_leave_nothing_out() -> None:
    assert why_not(GOOD, is_finished=False, require_finished=False) is None
    assert why_not("Rain.", tokens=1, min_tokens=0) is None
    assert why_not("yes it is " * 10, max_repetition=None) is None
    assert why_not(GOOD, must_match="drops", must_not_match=r"\d") is None


def test_words_count_where_tokens_are_not_known() -> None:
    assert why_not(GOOD, tokens=None, min_tokens=6) is None
    assert why_not(GOOD, tokens=None, min_tokens=7) == "too_short"


def test_the_greatest_repetition_is_still_allowed() -> None:
    text = "a b c a b c a b c"  # 7 sequences, 3 different
    assert why_not(text, max_repetition=1 - 3 / 7) is None
    assert why_not(text, max_repetition=0.57) == "repetitive"


@pytest.mark.parametrize("name", ["must_match", "must_not_match"])
@pytest.mark.parametrize(
    "pattern",
    ["(unclosed", "a{99999999999999}", "(" * 450 + ")" * 450],
    ids=["unclosed", "too many", "too deep"],
)
def test_patterns_that_are_none_are_refused_with_their_place(name: str, pattern: str) -> None:
    with pytest.raises(InvalidRequest, match=f"{name} is not a regular expression") as caught:
        Filters(RsfSettings.model_validate({name: pattern}))
    assert caught.value.param == f"method.rsf.{name}"


def test_a_pattern_that_takes_too_long_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="must_match takes longer than 0.1 s") as caught:
        why_not("x" * 5000, must_match="(x+x+)+y", max_repetition=None)
    assert caught.value.param == "method.rsf.must_match"
    assert "xx" not in caught.value.message
