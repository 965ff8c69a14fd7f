"""Which kinds of verifiable instructions settings may name; their checkers are elsewhere."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from steerward.protocol.errors import brief
from steerward.protocol.wire import Text

INSTRUCTION_KINDS = (
    "change_case:capital_word_frequency",
    "change_case:english_capital",
    "change_case:english_lowercase",
    "combination:repeat_prompt",
    "combination:two_responses",
    "detectable_content:number_placeholders",
    "detectable_content:postscript",
    "detectable_format:constrained_response",
    "detectable_format:json_format",
    "detectable_format:multiple_sections",
    "detectable_format:number_bullet_lists",
    "detectable_format:number_highlighted_sections",
    "detectable_format:title",
    "keywords:existence",
    "keywords:forbidden_words",
    "keywords:frequency",
    "keywords:letter_frequency",
    "language:response_language",
    "length_constraints:nth_paragraph_first_word",
    "length_constraints:number_paragraphs",
    "length_constraints:number_sentences",
    "length_constraints:number_words",
    "punctuation:no_comma",
    "startend:end_checker",
    "startend:quotation",
    "steerward:blank_line_paragraphs",
    "steerward:choice",
    "steerward:exclamation_marks",
    "steerward:no_digits",
    "steerward:numbered_list",
    "steerward:question_end",
    "steerward:sentence_length",
    "steerward:sentences_exactly",
    "steerward:single_line",
    "steerward:start_phrase",
    "steerward:word_length",
    "steerward:words_about",
    "steerward:words_between",
)
"""Ids of the kinds in `steerward.instructions`, in alphabetical order; a test holds both equal."""


def _check_known(kind: str) -> str:
    if kind not in INSTRUCTION_KINDS:
        raise ValueError(
            f"there is no kind of instruction {brief(kind)!r}; known: "
            f"{', '.join(INSTRUCTION_KINDS)}"
        )
    return kind


InstructionKind = Annotated[Text, AfterValidator(_check_known)]
"""One of these ids."""
