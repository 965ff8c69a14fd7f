"""The eight variants of loose accuracy."""

from __future__ import annotations

from collections import Counter

import pytest

from steerward.instructions import Instruction, loose_variants


def test_variants_are_the_published_eight() -> None:
    # Without the first line, the last, both; and each without asterisks.
    expected = ["*a*\nb\n*c*", "b\n*c*", "*a*\nb", "b", "a\nb\nc", "b\nc", "a\nb", "b"]
    assert Counter(loose_variants("*a*\nb\n*c*")) == Counter(expected)
    assert loose_variants("*a*\nb\n*c*")[0] == "*a*\nb\n*c*"


def test_variants_of_one_line_are_blank_where_it_is_taken_away() -> None:
    assert Counter(loose_variants("*a*")) == Counter({"*a*": 1, "a": 1, "": 6})


@pytest.mark.parametrize(
    ("kind", "arguments", "response"),
    [
        ("detectable_format:json_format", {}, 'Here it is:\n{"a": 1}\nEnjoy!'),
        ("change_case:english_lowercase", {}, "Sure!\nthis is the answer."),
        ("startend:end_checker", {"end_phrase": "the end"}, "**This is the end**"),
        ("startend:quotation", {}, '"All of it."\n\nThat was it.'),
    ],
    ids=["first-and-last", "first", "asterisks", "last"],
)
def test_loose_reading_looks_past_what_is_around(
    kind: str, arguments: dict[str, str], response: str
) -> None:
    instruction = Instruction(kind, arguments)
    assert not instruction.is_met(response)
    assert instruction.is_met_loosely(response)


def test_what_is_met_is_met_loosely_and_blank_variants_meet_nothing() -> None:
    no_comma = Instruction("punctuation:no_comma", {})
    assert no_comma.is_met_loosely("No comma")
    assert not no_comma.is_met_loosely("One, comma")
