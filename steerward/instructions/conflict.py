"""Which instructions may not stand together in one prompt.

Two conflict if no sensible response could meet both, or if one would nearly decide the other.
The pairs of the published registry are kept; kinds of our own are placed by the same sense.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

from steerward.instructions.instruction import Instruction
from steerward.instructions.registry import KINDS

_WHOLE_ANSWERS: Mapping[str, frozenset[str]] = {
    "detectable_format:constrained_response": frozenset(),
    "steerward:choice": frozenset(),
    "detectable_format:json_format": frozenset({"keywords:forbidden_words", "keywords:existence"}),
    "combination:two_responses": frozenset(
        {
            "keywords:forbidden_words",
            "keywords:existence",
            "language:response_language",
            "detectable_format:title",
            "punctuation:no_comma",
            "steerward:no_digits",
        }
    ),
    "combination:repeat_prompt": frozenset(
        {"keywords:existence", "detectable_format:title", "punctuation:no_comma"}
    ),
}
"""Kinds that decide nearly all of a response, and the only ones that stand with each."""

_PAIRS: frozenset[frozenset[str]] = frozenset(
    frozenset(pair)
    for kind, others in {
        "language:response_language": (
            "detectable_format:multiple_sections",
            "keywords:existence",
            "keywords:frequency",
            "keywords:forbidden_words",
            "startend:end_checker",
            "steerward:start_phrase",
        ),
        "length_constraints:number_paragraphs": ("length_constraints:number_sentences",),
        "detectable_format:multiple_sections": ("detectable_format:number_highlighted_sections",),
        "startend:quotation": ("detectable_format:title",),
        "detectable_content:postscript": ("steerward:question_end", "startend:end_checker"),
    }.items()
    for pair in product([kind], others)
)
_WORD_ARGUMENTS = ("keyword", "keywords", "forbidden_words")


def conflicts(first: Instruction, second: Instruction) -> bool:
    """Return whether two instructions may not stand in one prompt; the order is no matter.

    Two of one kind always conflict. The published rows hold a few that this calls conflicts,
    such as a lower and an upper limit of one kind: it is a rule for drawing, not for reading.
    """
    if _kinds_conflict(first.kind, second.kind) or _kinds_conflict(second.kind, first.kind):
        return True
    return bool(_named_words(first) & _named_words(second))


def _kinds_conflict(first: str, second: str) -> bool:
    if first == second or frozenset({first, second}) in _PAIRS:
        return True
    if first in _WHOLE_ANSWERS and second not in _WHOLE_ANSWERS[first]:
        return True
    return bool(KINDS[first].topics & KINDS[second].topics)


def _named_words(instruction: Instruction) -> set[str]:
    """Return the keywords that an instruction names, in small letters."""
    named: set[str] = set()
    for name in _WORD_ARGUMENTS:
        value = instruction.arguments.get(name, [])
        named |= {word.lower() for word in ([value] if isinstance(value, str) else value)}
    return named
