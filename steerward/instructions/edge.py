"""Instructions on how a response starts and ends, and on its punctuation.

``startend:`` and ``punctuation:`` of the published registry, and some of our own.
"""

from __future__ import annotations

from steerward.instructions.comparison import times
from steerward.instructions.kind import Arguments, Kind, Wish, nothing, text, whole_number
from steerward.instructions.vocabulary import ENDINGS, OPENINGS

_QUOTES = "\"'“”‘’"


def ends_with(response: str, phrase: str) -> bool:
    """Return whether a response ends with a phrase, in any case; double quotes around it aside."""
    return response.strip().strip('"').lower().endswith(phrase.lower())


def _draw_end(response: str, wish: Wish) -> Arguments | None:
    if not wish.met:
        return {"end_phrase": wish.order.choice(ENDINGS)}
    last = response.strip().strip('"').rpartition("\n")[2].split(" ")
    return {"end_phrase": " ".join(last[-wish.order.randint(2, 6) :])}


END_CHECKER = Kind(
    id="startend:end_checker",
    rules={"end_phrase": text},
    is_met=lambda response, given: ends_with(response, given["end_phrase"]),
    phrasings=lambda given: (
        f'Finish your response with this exact phrase: "{given["end_phrase"]}" '
        "No other words should follow it.",
        f'The last words of your response must be "{given["end_phrase"]}"',
    ),
    propose=_draw_end,
    topics=frozenset({"end"}),
)


def starts_with(response: str, phrase: str) -> bool:
    """Return whether a response starts with a phrase, in any case; a double quote aside."""
    return response.strip().lstrip('"').lower().startswith(phrase.lower())


def _draw_start(response: str, wish: Wish) -> Arguments | None:
    if not wish.met:
        return {"start_phrase": wish.order.choice(OPENINGS)}
    first = response.strip().lstrip('"').partition("\n")[0].split(" ")
    return {"start_phrase": " ".join(first[: wish.order.randint(1, 4)])}


START_PHRASE = Kind(
    id="steerward:start_phrase",
    rules={"start_phrase": text},
    is_met=lambda response, given: starts_with(response, given["start_phrase"]),
    phrasings=lambda given: (
        f'Start your response with "{given["start_phrase"]}".',
        f'The first words of your response must be "{given["start_phrase"]}".',
    ),
    propose=_draw_start,
    topics=frozenset({"beginning"}),
)


def is_quoted(response: str) -> bool:
    """Return whether all of a response stands between two double quotes."""
    inside = response.strip()
    return len(inside) > 1 and inside[0] == inside[-1] == '"'


QUOTATION = Kind(
    id="startend:quotation",
    rules={},
    is_met=lambda response, _: is_quoted(response),
    phrasings=lambda _: (
        "Wrap your entire response in double quotation marks.",
        'Put double quotes (") around all of your response.',
    ),
    propose=nothing,
)

NO_COMMA = Kind(
    id="punctuation:no_comma",
    rules={},
    is_met=lambda response, _: "," not in response,
    phrasings=lambda _: (
        "In your entire response, do not use any commas.",
        "Answer without a single comma.",
        "Commas are not allowed in your response.",
    ),
    propose=nothing,
)

NO_DIGITS = Kind(
    id="steerward:no_digits",
    rules={},
    is_met=lambda response, _: not any(map(str.isdigit, response)),
    phrasings=lambda _: (
        "Do not use any digits; spell numbers out.",
        "Your response must not contain digits.",
    ),
    propose=nothing,
    topics=frozenset({"digits"}),
)

QUESTION_END = Kind(
    id="steerward:question_end",
    rules={},
    is_met=lambda response, _: response.rstrip().rstrip(_QUOTES).endswith(("?", "？")),
    phrasings=lambda _: (
        "End your response with a question.",
        "The last character of your response should be a question mark.",
    ),
    propose=nothing,
    topics=frozenset({"end"}),
)


def _draw_exclamations(response: str, wish: Wish) -> Arguments | None:
    count = response.count("!")
    if wish.met:
        return {"most": count + wish.order.randint(0, 1 + count // 2)}
    return {"most": wish.order.randint(count // 2, count - 1)} if count else None


def _say_exclamations(arguments: Arguments) -> tuple[str, ...]:
    if not arguments["most"]:
        return ("Do not use exclamation marks.", "Your response must have no exclamation mark.")
    return (
        f"Use an exclamation mark at most {times(arguments['most'])}.",
        f"Exclamation marks may appear at most {times(arguments['most'])}.",
    )


EXCLAMATION_MARKS = Kind(
    id="steerward:exclamation_marks",
    rules={"most": whole_number()},
    is_met=lambda response, given: response.count("!") <= given["most"],
    phrasings=_say_exclamations,
    propose=_draw_exclamations,
)

KINDS = (END_CHECKER, START_PHRASE, QUOTATION, NO_COMMA, NO_DIGITS, QUESTION_END, EXCLAMATION_MARKS)
