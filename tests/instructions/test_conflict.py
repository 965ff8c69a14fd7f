"""Instructions that cannot both be sensible do not stand together."""

from __future__ import annotations

from itertools import combinations

import pytest

from steerward.instructions import Instruction, conflicts

COMMA = Instruction("punctuation:no_comma", {})
JSON = Instruction("detectable_format:json_format", {})
LOWER = Instruction("change_case:english_lowercase", {})
UPPER = Instruction("change_case:english_capital", {})
SPANISH = Instruction("language:response_language", {"language": "es"})
WORDS = Instruction("length_constraints:number_words", {"num_words": 9, "relation": "at least"})
BETWEEN = Instruction("steerward:words_between", {"least": 1, "most": 5})
ROCK = Instruction("keywords:existence", {"keywords": ["Rock"]})
NO_ROCK = Instruction("keywords:forbidden_words", {"forbidden_words": ["rock", "roll"]})
NO_ROLL = Instruction("keywords:forbidden_words", {"forbidden_words": ["roll"]})
CHOICE = Instruction("steerward:choice", {"options": ["Yes.", "No."]})
TITLE = Instruction("detectable_format:title", {})
QUOTED = Instruction("startend:quotation", {})

ALL = (COMMA, JSON, LOWER, UPPER, SPANISH, WORDS, BETWEEN, ROCK, NO_ROCK, CHOICE, TITLE, QUOTED)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (LOWER, UPPER),
        (LOWER, SPANISH),
        (WORDS, BETWEEN),
        (ROCK, NO_ROCK),
        (ROCK, SPANISH),
        (JSON, WORDS),
        (CHOICE, COMMA),
        (TITLE, QUOTED),
    ],
)
def test_contradictions_conflict(first: Instruction, second: Instruction) -> None:
    assert conflicts(first, second)


@pytest.mark.parametrize(
    ("first", "second"),
    [(COMMA, WORDS), (ROCK, NO_ROLL), (JSON, ROCK), (LOWER, TITLE), (SPANISH, COMMA)],
)
def test_others_stand_together(first: Instruction, second: Instruction) -> None:
    assert not conflicts(first, second)


def test_conflict_has_no_order_and_one_of_a_kind_is_enough() -> None:
    for first, second in combinations(ALL, 2):
        assert conflicts(first, second) == conflicts(second, first)
    assert all(conflicts(one, one) for one in ALL)
