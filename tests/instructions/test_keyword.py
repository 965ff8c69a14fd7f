"""Words and letters, as the published kinds take them."""

from __future__ import annotations

import pytest

from tests.instructions.cases import Case, is_met, name

EXISTENCE = "keywords:existence"
FREQUENCY = "keywords:frequency"
FORBIDDEN = "keywords:forbidden_words"
LETTER = "keywords:letter_frequency"

CASES: list[Case] = [
    (EXISTENCE, {"keywords": ["war", "peace"]}, "War and peace", True),
    (EXISTENCE, {"keywords": ["war"]}, "A warning", True),  # also inside a word
    (EXISTENCE, {"keywords": ["war", "peace"]}, "War and piece", False),
    (EXISTENCE, {"keywords": ["c++ (any)"]}, "I like C++ (any).", True),
    (
        FREQUENCY,
        {"keyword": "war", "frequency": 2, "relation": "at least"},
        "War on warts",
        True,
    ),
    (FREQUENCY, {"keyword": "war", "frequency": 2, "relation": "at least"}, "A war", False),
    (FREQUENCY, {"keyword": "war", "frequency": 2, "relation": "less than"}, "A war", True),
    (FREQUENCY, {"keyword": "war", "frequency": 1, "relation": "less than"}, "A war", False),
    (FORBIDDEN, {"forbidden_words": ["rock", "Roll"]}, "A rocket, rolled", True),
    (FORBIDDEN, {"forbidden_words": ["rock", "Roll"]}, "Let it roll!", False),
    (LETTER, {"letter": "T", "let_frequency": 2, "let_relation": "at least"}, "That", True),
    (LETTER, {"letter": "t", "let_frequency": 2, "let_relation": "less than"}, "That", False),
    (LETTER, {"letter": "#", "let_frequency": 2, "let_relation": "at least"}, "#a #b", True),
    (LETTER, {"letter": "!", "let_frequency": 1, "let_relation": "at least"}, "No", False),
]


@pytest.mark.parametrize("case", CASES, ids=name)
def test_keywords_are_checked_as_published(case: Case) -> None:
    assert is_met(case) == case[-1]
