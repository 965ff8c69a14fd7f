"""For each kind a response that meets some instruction of it, and one that misses one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steerward.instructions import Instruction

Case = tuple[str, dict[str, Any], str, bool]
"""Kind, arguments, response, and whether it is met."""

PUBLISHED = frozenset(
    {
        "keywords:existence",
        "keywords:frequency",
        "keywords:forbidden_words",
        "keywords:letter_frequency",
        "language:response_language",
        "length_constraints:number_sentences",
        "length_constraints:number_paragraphs",
        "length_constraints:number_words",
        "length_constraints:nth_paragraph_first_word",
        "detectable_content:number_placeholders",
        "detectable_content:postscript",
        "detectable_format:number_bullet_lists",
        "detectable_format:constrained_response",
        "detectable_format:number_highlighted_sections",
        "detectable_format:multiple_sections",
        "detectable_format:json_format",
        "detectable_format:title",
        "combination:two_responses",
        "combination:repeat_prompt",
        "startend:end_checker",
        "startend:quotation",
        "change_case:capital_word_frequency",
        "change_case:english_capital",
        "change_case:english_lowercase",
        "punctuation:no_comma",
    }
)

PROSE = (
    "The harbour was quiet, and 3 boats lay at the wall. Nobody spoke! I think they waited for "
    "the wind. Mr. Lee had the tickets, and the ladder was gone."
)

RESPONSES: Sequence[str] = (
    PROSE,
    "Yes.",
    "no",
    '{"answer": ["yes", 4]}',
    '"It was the river that kept them, and not the war."',
    "IT IS THE END OF THE ROAD AND WE ARE NOT AFRAID.",
    "it is what it is and we are all in this together. is that not so?",
    "<<On boats>>\n\nSection 1\nThey float.\n\nSection 2\nThey sink.\n\nP.S. Ask [name] or [us].",
    "* one point\n* another point\n- a third\n\nThat is *all* there is, **really** all.",
    "1. First you wait.\n2. Then you see.\n3) Then you go!",
    "One answer is four.\n******\nAnother is five.",
    "My answer is maybe.",
    "First part of it\n***\nSecond part\n***\nThird part",
    "La casa de mi abuela está en la montaña y es muy grande, pero no la veo.",
    "これは日本語の文章です。とても短いです！",
    "!!! ... ???",
    "42",
    "   \n\n  ",
    "",
)
"""Responses of every form that the kinds ask for."""


def is_met(case: Case) -> bool:
    kind, arguments, response, _ = case
    return Instruction(kind, arguments).is_met(response)


def name(value: object) -> str | None:
    return value[0].partition(":")[2] if isinstance(value, tuple) else None
