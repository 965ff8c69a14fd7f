"""Instructions are said, checked, compared, and read from published rows."""

from __future__ import annotations

from typing import Any

import pytest

from steerward.instructions import KINDS, Instruction, read_instructions
from steerward.protocol.errors import InvalidRequest
from tests.other_process import in_another_process

WORDS = {"num_words": 1, "relation": "at least"}


def test_blank_response_meets_nothing() -> None:
    assert not Instruction("punctuation:no_comma", {}).is_met(" \n")


def test_phrasings_say_the_same_and_count_round() -> None:
    one = Instruction("length_constraints:number_words", WORDS)
    assert one.text == "Answer with at least 1 word."
    again = Instruction("length_constraints:number_words", WORDS, phrasing=3)
    other = Instruction("length_constraints:number_words", WORDS, phrasing=1)
    assert again == one
    assert hash(again) == hash(one)
    assert other != one
    assert other.text == "Your response should have at least 1 word."


def test_instruction_passes_between_processes() -> None:
    one = Instruction("keywords:existence", {"keywords": ["war", "peace", "war"]})
    assert in_another_process(Instruction.is_met, one, "war and peace")
    assert one.arguments == {"keywords": ["war", "peace"]}


def test_published_row_is_read_as_it_is() -> None:
    ids = ["punctuation:no_comma", "length_constraints:number_words", "startend:quotation"]
    empty: dict[str, Any] = dict.fromkeys(("num_words", "relation", "keywords", "letter"))
    read = read_instructions(
        ids, [empty, {**empty, "num_words": 300, "relation": "at least"}, None]
    )
    assert [one.kind for one in read] == ids
    assert read[1].arguments == {"num_words": 300, "relation": "at least"}


def test_wrong_row_is_named_by_its_place() -> None:
    with pytest.raises(InvalidRequest, match="2 instructions and arguments of 1"):
        read_instructions(["punctuation:no_comma", "startend:quotation"], [{}])
    with pytest.raises(InvalidRequest, match="instruction 1: there is no kind"):
        read_instructions(["punctuation:no_comma", "startend:quote"], [{}, {}])


def test_every_text_names_its_text_arguments() -> None:
    given = {
        "startend:end_checker": {"end_phrase": "the {end}"},
        "steerward:start_phrase": {"start_phrase": "the {start}"},
        "keywords:existence": {"keywords": ["the {word}"]},
        "combination:repeat_prompt": {"prompt_to_repeat": "Name {x}."},
        "detectable_content:postscript": {"postscript_marker": "NB {x}"},
    }
    for kind, arguments in given.items():
        for phrasing in range(len(KINDS[kind].phrasings(arguments))):
            (value,) = arguments.values()
            said = value if isinstance(value, str) else value[0]
            assert said in Instruction(kind, arguments, phrasing).text
