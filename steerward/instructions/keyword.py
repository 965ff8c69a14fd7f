"""Instructions on words and letters that a response must have, or must not have.

``keywords:`` of the published registry. The published checkers read a keyword as a regular
expression; here it is plain text, which is the same for keywords of letters.
"""

from __future__ import annotations

import random
import re

from steerward.instructions.comparison import (
    RELATIONS,
    counted,
    holds,
    limit_and_relation,
    listed,
    times,
)
from steerward.instructions.kind import Arguments, Kind, Wish, one_of, text, texts, whole_number
from steerward.instructions.measure import plain_words
from steerward.instructions.vocabulary import absent_words

_MOST_KEYWORDS = 3
"""Most keywords that one drawn instruction names. Ours."""


def has_word(response: str, word: str) -> bool:
    """Return whether a word stands in the response as a whole word, in any case."""
    return bool(_whole_words(response, word))


def _whole_words(response: str, word: str) -> list[str]:
    return re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", response, flags=re.IGNORECASE)


def _present_words(response: str, order: random.Random) -> list[str]:
    present = plain_words(response)
    return order.sample(present, k=min(len(present), order.randint(1, _MOST_KEYWORDS)))


def _draw_existence(response: str, wish: Wish) -> Arguments | None:
    keywords = _present_words(response, wish.order)
    if not wish.met:
        absent = absent_words(response, most=2, order=wish.order)
        keywords = [*absent, *keywords[: wish.order.randint(0, 1)]] if absent else []
        wish.order.shuffle(keywords)
    return {"keywords": keywords} if keywords else None


def _say_existence(arguments: Arguments) -> tuple[str, ...]:
    keywords = listed(arguments["keywords"])
    noun = "keyword" if len(arguments["keywords"]) == 1 else "keywords"
    return (
        f"Include the {noun} {keywords} in the response.",
        f"Your response must mention {keywords}.",
        f"Make sure to use {keywords}.",
    )


EXISTENCE = Kind(
    id="keywords:existence",
    rules={"keywords": texts},
    is_met=lambda response, given: all(
        keyword.lower() in response.lower() for keyword in given["keywords"]
    ),
    phrasings=_say_existence,
    propose=_draw_existence,
)


def occurrences(response: str, keyword: str) -> int:
    """Return how often a keyword occurs in any case, also inside longer words."""
    return response.lower().count(keyword.lower())


def _draw_frequency(response: str, wish: Wish) -> Arguments | None:
    present = plain_words(response)
    if not present:
        return None
    # Of a few words the most frequent: a limit of one says little that `existence` does not.
    some = wish.order.sample(present, k=min(3, len(present)))
    keyword = max(some, key=lambda word: occurrences(response, word))
    if occurrences(response, keyword) != len(_whole_words(response, keyword)):
        # A reader would not count it in longer words, as the rule does.
        return None
    drawn = limit_and_relation(occurrences(response, keyword), wish)
    return drawn and {"keyword": keyword, "frequency": drawn[0], "relation": drawn[1]}


def _say_frequency(arguments: Arguments) -> tuple[str, ...]:
    amount = f"{arguments['relation']} {times(arguments['frequency'])}"
    keyword = arguments["keyword"]
    return (
        f'In your response, the word "{keyword}" should appear {amount}.',
        f'Use the word "{keyword}" {amount}.',
    )


FREQUENCY = Kind(
    id="keywords:frequency",
    rules={"keyword": text, "frequency": whole_number(), "relation": one_of(*RELATIONS)},
    is_met=lambda response, given: holds(
        occurrences(response, given["keyword"]), given["relation"], given["frequency"]
    ),
    phrasings=_say_frequency,
    propose=_draw_frequency,
)


def _draw_forbidden(response: str, wish: Wish) -> Arguments | None:
    absent = absent_words(response, most=_MOST_KEYWORDS, order=wish.order)
    present = _present_words(response, wish.order)
    if not (absent if wish.met else present):
        return None
    forbidden = absent if wish.met else [*present[:1], *absent[:1]]
    wish.order.shuffle(forbidden)
    return {"forbidden_words": forbidden}


def _say_forbidden(arguments: Arguments) -> tuple[str, ...]:
    forbidden = listed(arguments["forbidden_words"])
    noun = "word" if len(arguments["forbidden_words"]) == 1 else "words"
    return (
        f"Do not include the {noun} {forbidden} in the response.",
        f"Avoid the {noun} {forbidden}.",
        f"Answer without using the {noun} {forbidden}.",
    )


FORBIDDEN_WORDS = Kind(
    id="keywords:forbidden_words",
    rules={"forbidden_words": texts},
    is_met=lambda response, given: (
        not any(has_word(response, word) for word in given["forbidden_words"])
    ),
    phrasings=_say_forbidden,
    propose=_draw_forbidden,
)


def _letter(value: object) -> str:
    letter = text(value)
    if len(letter) != 1:
        raise ValueError(f"{len(letter)} characters, must be one")
    return letter


def _draw_letter(response: str, wish: Wish) -> Arguments | None:
    letters = sorted(
        {letter for letter in response.lower() if letter.isascii() and letter.isalpha()}
    )
    if not letters:
        return None
    letter = wish.order.choice(letters)
    drawn = limit_and_relation(response.lower().count(letter), wish)
    return drawn and {"letter": letter, "let_frequency": drawn[0], "let_relation": drawn[1]}


def _say_letter(arguments: Arguments) -> tuple[str, ...]:
    letter, relation = arguments["letter"], arguments["let_relation"]
    noun = "letter" if letter.isalpha() else "character"
    return (
        f'In your response, the {noun} "{letter}" should appear {relation} '
        f"{times(arguments['let_frequency'])}.",
        f'Use the {noun} "{letter}" {relation} {times(arguments["let_frequency"])}.',
        f"Your response should have {relation} "
        f'{counted(arguments["let_frequency"], "occurrence")} of the {noun} "{letter}".',
    )


LETTER_FREQUENCY = Kind(
    id="keywords:letter_frequency",
    rules={
        "letter": _letter,
        "let_frequency": whole_number(),
        "let_relation": one_of(*RELATIONS),
    },
    is_met=lambda response, given: holds(
        response.lower().count(given["letter"].lower()),
        given["let_relation"],
        given["let_frequency"],
    ),
    phrasings=_say_letter,
    propose=_draw_letter,
    topics=frozenset({"letters"}),
)

KINDS = (EXISTENCE, FREQUENCY, FORBIDDEN_WORDS, LETTER_FREQUENCY)
