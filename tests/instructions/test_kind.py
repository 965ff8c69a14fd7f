"""Arguments are read by their rules, and a wrong one is named."""

from __future__ import annotations

from typing import Any

import pytest

from steerward.instructions import KINDS, Instruction
from steerward.protocol.errors import InvalidRequest

WORDS = "length_constraints:number_words"
NTH = "length_constraints:nth_paragraph_first_word"


@pytest.mark.parametrize(
    ("kind", "arguments", "reason"),
    [
        (WORDS, {"num_words": 3}, r"number_words needs the argument relation"),
        (WORDS, {"num_words": None, "relation": "at least"}, "needs the argument num_words"),
        (WORDS, {"words": 3}, r"no argument words; its arguments: num_words, relation"),
        (WORDS, {"num_words": -1, "relation": "at least"}, "num_words is -1, must be a whole"),
        (WORDS, {"num_words": 2.5, "relation": "at least"}, "num_words is 2.5, must be a whole"),
        (WORDS, {"num_words": float("inf"), "relation": "at least"}, "num_words is inf"),
        (WORDS, {"num_words": 10**400, "relation": "at least"}, "1,329 bits, must be at most"),
        (WORDS, {"num_words": -(10**5000), "relation": "at least"}, "must be at most"),
        (WORDS, {"num_words": 1e300, "relation": "at least"}, "at most 1,000,000,000"),
        (WORDS, {"num_words": True, "relation": "at least"}, "num_words is not a whole number"),
        (WORDS, {"num_words": 3, "relation": "about"}, "one of at least, less than"),
        ("keywords:existence", {"keywords": []}, "keywords is .* at least one text"),
        ("keywords:existence", {"keywords": "war"}, "must be a list"),
        ("keywords:existence", {"keywords": ["war", " "]}, "must be a text that is not blank"),
        (
            "keywords:letter_frequency",
            {"letter": "ab", "let_frequency": 1, "let_relation": "at least"},
            "letter is 2 characters, must be one",
        ),
        ("language:response_language", {"language": "xx"}, "'xx', must be one of en, es"),
        (
            NTH,
            {"num_paragraphs": 1, "nth_paragraph": 2, "first_word": "a"},
            "nth_paragraph is 2, and there are 1",
        ),
        ("steerward:words_between", {"least": 3, "most": 2}, "least is 3, above most, 2"),
        ("punctuation:no_comma", {"most": 1}, "no argument most; its arguments: none"),
    ],
)
def test_wrong_argument_is_named(kind: str, arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        Instruction(kind, arguments)


def test_arguments_of_other_kinds_that_are_none_are_no_matter() -> None:
    given = {"num_words": 3.0, "relation": "at least", "num_bullets": None, "keywords": None}
    assert Instruction(WORDS, given).arguments == {"num_words": 3, "relation": "at least"}


def test_family_is_before_the_colon() -> None:
    assert KINDS[WORDS].family == "length_constraints"
