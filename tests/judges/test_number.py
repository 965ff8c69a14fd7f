from __future__ import annotations

from fractions import Fraction

import pytest

from steerward.judges.number import is_prose, last_number_of, only_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (r"12\text{ cm}^2", 12),
        (r"12\,\mathrm{cm}^{2}", 12),
        (r"3 \text{ m/s}^2", 3),
        ("12 square feet", 12),
        ("12-inch", 12),
        ("5 km/h", 5),
        (r"45^\circ", 45),
        (r"\$18", 18),
        (r"18\%", 18),
        ("1,234", 1234),
        (r"1{,}000", 1000),
        (r"\frac1{2}", Fraction(1, 2)),
        (r"-\dfrac{3}{4}", Fraction(-3, 4)),
        (r"\frac{1}{-2}", Fraction(-1, 2)),
        (r"-1\frac12", Fraction(-3, 2)),
        ("1 1/2", Fraction(3, 2)),
        (r"3 \times 10^{-5}", Fraction(3, 100_000)),
        (r"\approx 3.14", Fraction("3.14")),
        ("x = -5", -5),
        ("2 + 3 = 5", 5),
        ("a total of 12", 12),
        (r"\text{12}", 12),
    ],
)
def test_an_answer_is_read_without_units_and_words(text: str, number: Fraction | int) -> None:
    assert only_number(text) == number


@pytest.mark.parametrize(
    "text",
    [
        *("(3,5)", "1, 2, 3", "5:30", r"5\text{ or }7", "x = 2 or x = -2", "3 \\pm 2", "x+1"),
        *(
            r"7\sqrt{2}",
            r"\frac{\sqrt{3}}{2}",
            r"2\pi",
            "3x",
            "3xy",
            "3xyz",
            "m/2",
            "5-ab",
            "3+4i",
            r"\frac{1}{2}x",
        ),
        *("10^5", "2^{10}", "1010_2", "12!", r"0.\overline{3}", "3/4/5", "1/0", "", "Paris"),
        *("9" * 5000, r"x\in[2,3]"),
    ],
)
def test_what_is_more_than_a_number_has_none(text: str) -> None:
    assert only_number(text) is None


def test_the_last_of_prose_is_a_number_or_a_root() -> None:
    assert last_number_of(r"It is $12\text{ cm}^2$.") == 12
    assert last_number_of("1 1/2 cups") == Fraction(3, 2)
    assert last_number_of(r"First 3, then $3\sqrt{2}$.") is None
    assert last_number_of(r"A circle of 2\pi r") is None


def test_prose_has_words() -> None:
    assert is_prose("It is 42")
    assert is_prose("5\n42")
    assert not is_prose(r"\frac{12}{5}\text{ cm}")


@pytest.mark.parametrize(
    "text", [r"\frac{", "1,", r"\text{", r"\sqrt[", "a ", "- ", "=", r"\times "]
)
def test_long_answers_take_no_time(text: str) -> None:
    assert only_number(text * 50_000) is None
    last_number_of(text * 50_000)
