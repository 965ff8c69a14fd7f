from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerward.judges import ExactAnswer, NumericAnswer
from steerward.judges.answer import last_number, marked_answer
from steerward.protocol.errors import InvalidRequest
from tests.judges.asking import verdict_of


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 42.", 42),
        ("First 3, then 4", 4),
        ("It costs $1,234.50 in all", Fraction("1234.5")),
        ("#### 7\nSee chapter 9", 7),
        (r"So \boxed{12} of 30", 12),
        (r"So \boxed{\frac{1}{2}}", Fraction(1, 2)),
        (r"So \boxed{1{,}000}", 1000),
        ("-5", -5),
        ("−5 degrees", -5),
        ("7-2", 2),
        ("x=-3", -3),
        ("$-3", -3),
        ("3/4 of it", Fraction(3, 4)),
        (".5", Fraction(1, 2)),
        ("1.5e3", 1500),
        ("50%", 50),
        ("5km", 5),
        ("water is H2O", None),
        ("none", None),
        ("1/0", None),
        ("9" * 5000, None),
        ("1e999999999", 1),
        ("答案是-42。", -42),
    ],
)
def test_the_last_number_is_read(text: str, number: Fraction | int | None) -> None:
    assert last_number(text) == number


@given(st.integers(-(10**12), 10**12))
def test_integers_are_read_with_and_without_separators(number: int) -> None:
    assert last_number(f"It is {number:,}.") == last_number(f"It is {number}") == number


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        (r"\boxed{a} then \boxed{b}", "b"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{a} and \boxed{cut", "a"),
        ("#### a\nb", "a"),
        ("plain", None),
    ],
)
def test_the_last_whole_mark_counts(text: str, marked: str | None) -> None:
    assert marked_answer(text) == marked


@pytest.mark.parametrize(
    ("completion", "answer", "verdict"),
    [
        ("So it is 42.", "Long reasoning 5\n#### 42", 1),
        ("So it is 42.", 42, 1),
        ("So it is 42.0", 42, 1),
        ("So it is 41", 42, 0),
        ("I do not know", 42, 0),
        ("So it is 42", None, None),
        ("So it is 42", "unknown", -1),
        ("So it is 42", math.nan, -1),
        ("So it is 1", True, -1),
    ],
)
def test_numbers_are_compared_with_the_row(
    completion: str, answer: object, verdict: int | None
) -> None:
    assert verdict_of(NumericAnswer(), completion, answer=answer) == verdict


@pytest.mark.parametrize(
    ("completion", "answer", "verdict"),
    [
        (r"\boxed{99\text{ cm}^2}", r"\boxed{12\text{ cm}^2}", 0),
        (r"\boxed{12\text{ cm}^2}", "12", 1),
        ("So it is 12 m^2", "12", 1),
        ("So it is 12", "12 m^2", 1),
        (r"\boxed{1\frac{1}{2}}", "1.5", 1),
        (r"\boxed{\frac12}", "0.5", 1),
        (r"\boxed{7\sqrt{2}}", r"\boxed{3\sqrt{2}}", -1),
        (r"\boxed{7\sqrt{2}}", r"3\sqrt{2}", -1),
        (r"\boxed{7\sqrt{2}}", 2, 0),
        (r"so $7\sqrt{2}$", 2, 0),
        (r"\boxed{(3,5)}", "(1,5)", -1),
        (r"\boxed{(3,5)}", 5, 0),
        (r"I had 5, so \boxed{x + y}", 5, 0),
        (r"#### 3 and 5", 5, 0),
        ("It is 1e3", 10**400, 0),
        (str(10**400), 10**400, 1),
        ("It is 1e3", 10**2000, -1),
    ],
)
def test_a_marked_answer_is_one_number_or_none(
    completion: str, answer: object, verdict: int
) -> None:
    """Once, the last digits of an exponent, a root or a pair were the answer."""
    assert verdict_of(NumericAnswer(), completion, answer=answer) == verdict


@pytest.mark.parametrize(
    "text", [r"\boxed{" * 100_000, r"\boxed" + " " * 200_000, "1" + " " * 200_000]
)
def test_long_answers_are_read_once(text: str) -> None:
    """Once, 6,000 boxes that are not closed took 30 seconds."""
    assert marked_answer(text) is None
    assert last_number(text) == (1 if text[0] == "1" else None)


def test_a_tolerance_includes_its_end() -> None:
    judge = NumericAnswer(absolute_tolerance=0.5)
    assert verdict_of(judge, "10.5", answer=10) == 1
    assert verdict_of(judge, "10.51", answer=10) == 0
    assert verdict_of(NumericAnswer(relative_tolerance=0.25), "125", answer=100) == 1
    with pytest.raises(InvalidRequest, match="tolerances"):
        NumericAnswer(absolute_tolerance=math.nan)


@pytest.mark.parametrize(
    ("completion", "answer", "verdict"),
    [
        ("  Paris. ", "paris", 1),
        ("It is\n#### Paris", "Paris", 1),
        (r"It is \boxed{B}", ["A", "b"], 1),
        ("London", "Paris", 0),
        ("It is Paris", "Paris", 0),
        ("", "Paris", 0),
        ("Paris", None, None),
        ("Paris", "", -1),
        ("Paris", [], -1),
        ("7", 7, 1),
    ],
)
def test_answers_are_compared_with_the_row(
    completion: str, answer: object, verdict: int | None
) -> None:
    assert verdict_of(ExactAnswer(), completion, answer=answer) == verdict


def test_the_last_line_and_capitals_can_count() -> None:
    assert verdict_of(ExactAnswer(without_mark="last_line"), "So:\nParis", answer="Paris") == 1
    assert verdict_of(ExactAnswer(is_case_sensitive=True), "paris", answer="Paris") == 0
    assert verdict_of(ExactAnswer(column="gold"), "Paris", answer="x", gold="Paris") == 1
