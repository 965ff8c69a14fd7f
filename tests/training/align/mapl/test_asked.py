"""Held-out prompts with instructions: drawn alike for all seeds, measured one by one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from steerward.instructions import Instruction
from steerward.training.align.mapl.asked import asked_kinds, asked_prompts, followed_column
from steerward.training.align.mapl.data import TooFewRows
from steerward.training.align.rows import PairRow
from tests.training.align.mapl.samples import prompt

KINDS = (
    "punctuation:no_comma",
    "startend:quotation",
    "steerward:no_digits",
    "steerward:question_end",
)
PAIRS = [
    PairRow(prompt("Who?"), "Is it me?", "No, not you, 7.", {"source": "a"}, "rows, row 3"),
    PairRow(prompt("How many?"), "Of fish, 5.", "None.", {"source": "b"}),
    PairRow(prompt("When?"), "Now or never.", "Never, ever.", {"source": "c"}),
    PairRow(prompt("Where?"), "Here", "There", {"source": "d"}),
]


def test_prompts_ask_for_what_the_preferred_response_does() -> None:
    found = asked_prompts(PAIRS, kinds=KINDS, sizes=(1, 2), max_tokens=9)
    assert [row.columns["source"] for row in found] == ["a", "c"]
    for row, pair in zip(found, (PAIRS[0], PAIRS[2]), strict=True):
        asked = row.columns["instructions"]
        assert 1 <= len(asked) <= 2
        assert all(one.is_met(pair.chosen) for one in asked)
        # So that the share tells the two apart.
        assert not any(one.is_met(pair.rejected) for one in asked)
        assert row.place == pair.place
        told = row.messages[-1]["content"]
        assert told == "\n\n".join(
            [pair.messages[-1]["content"], " ".join(one.text for one in asked)]
        )
    assert found == asked_prompts(PAIRS, kinds=KINDS, sizes=(1, 2), max_tokens=9)
    assert asked_kinds(found) == Counter(
        sorted(one.kind for row in found for one in row.columns["instructions"])
    )


def test_no_more_words_are_asked_for_than_an_answer_has_room_for() -> None:
    long = PairRow(prompt("Which?"), "word " * 40, "No.", {})
    kinds = ("length_constraints:number_words", "steerward:words_about", "steerward:words_between")
    for kind in kinds:
        assert asked_prompts([long], kinds=[kind], sizes=(1, 1), max_tokens=100)
        with pytest.raises(TooFewRows):
            asked_prompts([long], kinds=[kind], sizes=(1, 1), max_tokens=8)
    # No room is needed for fewer words.
    short = PairRow(prompt("Which?"), "Yes.", "word " * 40, {})
    less = ("length_constraints:number_words",)
    assert asked_prompts([short], kinds=less, sizes=(1, 1), max_tokens=2)


def test_pairs_of_which_none_gives_enough_are_refused_with_a_way_out() -> None:
    with pytest.raises(TooFewRows, match="none of 4 held-out pairs, 4 instructions of the 4 kinds"):
        asked_prompts(PAIRS, kinds=KINDS, sizes=(4, 4), max_tokens=9)


def test_nothing_held_out_is_nothing_asked() -> None:
    assert asked_prompts([], kinds=[], sizes=(2, 4), max_tokens=9) == []


def test_the_column_is_the_share_of_instructions_that_an_answer_follows() -> None:
    both = [Instruction("punctuation:no_comma", {}), Instruction("steerward:no_digits", {})]
    answers = ["Yes.", "Yes, sure.", "Yes, 5.", " "]
    completions: list[Any] = [[{"role": "assistant", "content": one}] for one in answers]
    column = followed_column()
    found = column(
        prompts=[[]] * 4, completions=completions, instructions=[both] * 4, source=["a"] * 4
    )
    assert found == [1.0, 0.5, 0.0, 0.0]
    assert column.__name__ == "instructions_followed"
