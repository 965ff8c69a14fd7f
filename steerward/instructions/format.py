"""Instructions on the form of a response: lists, sections, titles, JSON, fixed answers.

``detectable_format:`` of the published registry.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from steerward.instructions.comparison import AT_LEAST, counted, limit_near, listed, other_count
from steerward.instructions.kind import Arguments, Kind, Wish, nothing, text, texts, whole_number
from steerward.instructions.vocabulary import ANSWERS

_STARRED = re.compile(r"^[^\S\n]*\*[^*].*$", re.MULTILINE)
_DASHED = re.compile(r"^[^\S\n]*-.*$", re.MULTILINE)
_NUMBERED = re.compile(r"^[^\S\n]*\d+[.)]\s", re.MULTILINE)
_HIGHLIGHT = re.compile(r"\*([^\n*]*)\*")
_STRONG = re.compile(r"\*\*([^\n*]*)\*\*")
_SPLITTERS = ("Section", "SECTION", "Part", "Chapter")
_FENCES = ("```json", "```Json", "```JSON", "```")
_CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_LONGEST_CHOICE = 60
"""Longest response, in characters, that is drawn as one of a list of answers. Ours."""


def bullets(response: str) -> int:
    """Return the number of lines that start with ``*`` (and no second one) or ``-``."""
    return len(_STARRED.findall(response)) + len(_DASHED.findall(response))


def _draw_bullets(response: str, wish: Wish) -> Arguments | None:
    count = bullets(response)
    if wish.met:
        return {"num_bullets": count} if count else None
    return {"num_bullets": other_count(count, least=1, order=wish.order)}


def _say_bullets(arguments: Arguments) -> tuple[str, ...]:
    amount = counted(arguments["num_bullets"], "bullet point")
    return (
        f'Your answer must contain exactly {amount}, in markdown: each on a line with "* " first.',
        f"Give exactly {amount} as markdown (* like this).",
    )


NUMBER_BULLET_LISTS = Kind(
    id="detectable_format:number_bullet_lists",
    rules={"num_bullets": whole_number()},
    is_met=lambda response, given: bullets(response) == given["num_bullets"],
    phrasings=_say_bullets,
    propose=_draw_bullets,
    topics=frozenset({"lines"}),
)


def _draw_numbered(response: str, wish: Wish) -> Arguments | None:
    count = len(_NUMBERED.findall(response))
    if wish.met:
        return {"num_items": count} if count else None
    return {"num_items": other_count(count, least=1, order=wish.order)}


def _say_numbered(arguments: Arguments) -> tuple[str, ...]:
    amount = counted(arguments["num_items"], "item")
    return (
        f"Answer with a numbered list of exactly {amount} (1., 2., ...).",
        f"Include exactly {amount} in a numbered list, each on its own line.",
    )


NUMBERED_LIST = Kind(
    id="steerward:numbered_list",
    rules={"num_items": whole_number(least=1)},
    is_met=lambda response, given: len(_NUMBERED.findall(response)) == given["num_items"],
    phrasings=_say_numbered,
    propose=_draw_numbered,
    topics=frozenset({"lines", "digits"}),
)


def highlights(response: str) -> int:
    """Return the number of ``*parts*`` and ``**parts**`` that are not blank."""
    found = (*_HIGHLIGHT.findall(response), *_STRONG.findall(response))
    return sum(bool(part.strip()) for part in found)


def _draw_highlights(response: str, wish: Wish) -> Arguments | None:
    limit = limit_near(highlights(response), AT_LEAST, wish=wish)
    return None if limit is None else {"num_highlights": limit}


def _say_highlights(arguments: Arguments) -> tuple[str, ...]:
    amount = counted(arguments["num_highlights"], "section")
    return (
        f"Highlight at least {amount} of your answer with markdown, like *this*.",
        f"Use markdown emphasis (*words*) on at least {amount}.",
    )


NUMBER_HIGHLIGHTED_SECTIONS = Kind(
    id="detectable_format:number_highlighted_sections",
    rules={"num_highlights": whole_number()},
    is_met=lambda response, given: highlights(response) >= given["num_highlights"],
    phrasings=_say_highlights,
    propose=_draw_highlights,
)


def sections(response: str, splitter: str) -> int:
    """Return how often a splitter stands before a number."""
    return len(re.findall(rf"{re.escape(splitter)}\s?\d+", response))


def _draw_sections(response: str, wish: Wish) -> Arguments | None:
    splitter = wish.order.choice(_SPLITTERS)
    limit = limit_near(sections(response, splitter), AT_LEAST, wish=wish)
    return None if limit is None else {"section_spliter": splitter, "num_sections": limit}


def _say_sections(arguments: Arguments) -> tuple[str, ...]:
    amount = counted(arguments["num_sections"], "section")
    splitter = arguments["section_spliter"]
    return (
        f'Your response must have at least {amount}. Start each with "{splitter} X", as in '
        f'"{splitter} 1".',
        f"Divide your response into at least {amount}: {splitter} 1, {splitter} 2 and so on.",
    )


MULTIPLE_SECTIONS = Kind(
    id="detectable_format:multiple_sections",
    # The published name of the argument has one t.
    rules={"section_spliter": text, "num_sections": whole_number()},
    is_met=lambda response, given: (
        sections(response, given["section_spliter"]) >= given["num_sections"]
    ),
    phrasings=_say_sections,
    propose=_draw_sections,
    topics=frozenset({"lines", "digits"}),
)


def is_json(response: str) -> bool:
    """Return whether all of a response, without a code fence around it, is JSON."""
    inside = response.strip()
    for fence in _FENCES:
        inside = inside.removeprefix(fence)
    try:
        json.loads(inside.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


JSON_FORMAT = Kind(
    id="detectable_format:json_format",
    rules={},
    is_met=lambda response, _: is_json(response),
    phrasings=lambda _: (
        "The entire output should be JSON; a markdown code block around it is fine.",
        "Answer with valid JSON and nothing else.",
        "Give your whole response in JSON format.",
    ),
    propose=nothing,
    topics=frozenset({"lines"}),
)


def _titles(response: str) -> Iterator[str]:
    # By line and not by one pattern, which takes a square of a line of brackets.
    for line in response.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if start >= 0 and end > start + 2:
            yield line[start:end].lstrip("<").rstrip(">").strip()


TITLE = Kind(
    id="detectable_format:title",
    rules={},
    is_met=lambda response, _: any(_titles(response)),
    phrasings=lambda _: (
        "Your answer must contain a title in double angular brackets, such as <<a title>>.",
        "Give your response a title, wrapped like this: <<title>>.",
    ),
    propose=nothing,
)

CONSTRAINED_RESPONSE = Kind(
    id="detectable_format:constrained_response",
    rules={},
    is_met=lambda response, _: any(answer in response for answer in _CONSTRAINED),
    phrasings=lambda _: (
        f"Answer with one of these options: {listed(list(_CONSTRAINED))}.",
        f"Choose your answer from {listed(list(_CONSTRAINED))}.",
    ),
    propose=nothing,
)


def _draw_choice(response: str, wish: Wish) -> Arguments | None:
    answer = response.strip()
    others = wish.order.sample(
        [other for other in ANSWERS if other != answer], k=wish.order.randint(2, 3)
    )
    if wish.met and (len(answer) > _LONGEST_CHOICE or "\n" in answer):
        return None
    options = [*others, answer] if wish.met else others
    wish.order.shuffle(options)
    return {"options": options}


def _say_choice(arguments: Arguments) -> tuple[str, ...]:
    options = listed(arguments["options"])
    return (
        f"Answer with exactly one of {options}, and nothing else.",
        f"Your whole response must be one of these: {options}.",
    )


CHOICE = Kind(
    id="steerward:choice",
    rules={"options": texts},
    is_met=lambda response, given: response.strip() in given["options"],
    phrasings=_say_choice,
    propose=_draw_choice,
)

KINDS = (
    NUMBER_BULLET_LISTS,
    NUMBERED_LIST,
    NUMBER_HIGHLIGHTED_SECTIONS,
    MULTIPLE_SECTIONS,
    JSON_FORMAT,
    TITLE,
    CONSTRAINED_RESPONSE,
    CHOICE,
)
