"""Instructions on letter case and on language.

``change_case:`` and ``language:`` of the published registry, with the rules of
`steerward.instructions.language` and `measure.tokens` in the place of langdetect and nltk.
"""

from __future__ import annotations

from steerward.instructions.comparison import RELATIONS, counted, holds, limit_and_relation
from steerward.instructions.kind import Arguments, Kind, Wish, nothing, one_of, whole_number
from steerward.instructions.language import LANGUAGES, is_in, language_of, may_be_english
from steerward.instructions.measure import tokens

ENGLISH_CAPITAL = Kind(
    id="change_case:english_capital",
    rules={},
    is_met=lambda response, _: response.isupper() and may_be_english(response),
    phrasings=lambda _: (
        "Your entire response should be in English and in all capital letters.",
        "Write everything in English, in capital letters only.",
        "Answer in English, in upper case throughout.",
    ),
    propose=nothing,
    topics=frozenset({"case", "language"}),
)

ENGLISH_LOWERCASE = Kind(
    id="change_case:english_lowercase",
    rules={},
    is_met=lambda response, _: response.islower() and may_be_english(response),
    phrasings=lambda _: (
        "Your entire response should be in English and in all lowercase letters. "
        "No capital letters are allowed.",
        "Write everything in English, in small letters only.",
        "Answer in English, in lower case throughout.",
    ),
    propose=nothing,
    topics=frozenset({"case", "language"}),
)


def capital_words(response: str) -> int:
    """Return how many words have capital letters only; "I" and "A" are such words."""
    return sum(token.isupper() for token in tokens(response))


def _draw_capitals(response: str, wish: Wish) -> Arguments | None:
    drawn = limit_and_relation(capital_words(response), wish)
    return drawn and {"capital_frequency": drawn[0], "capital_relation": drawn[1]}


def _say_capitals(arguments: Arguments) -> tuple[str, ...]:
    relation, count = arguments["capital_relation"], arguments["capital_frequency"]
    return (
        f"In your response, have {relation} {counted(count, 'word')} in all capital letters.",
        f"Write {relation} {counted(count, 'word')} entirely in capitals.",
    )


CAPITAL_WORD_FREQUENCY = Kind(
    id="change_case:capital_word_frequency",
    rules={"capital_frequency": whole_number(), "capital_relation": one_of(*RELATIONS)},
    is_met=lambda response, given: holds(
        capital_words(response), given["capital_relation"], given["capital_frequency"]
    ),
    phrasings=_say_capitals,
    propose=_draw_capitals,
    topics=frozenset({"case"}),
)


def _draw_language(response: str, wish: Wish) -> Arguments | None:
    code = language_of(response)
    if code is None:
        return None
    others = [other for other in LANGUAGES if other != code]
    return {"language": code if wish.met else wish.order.choice(others)}


def _say_language(arguments: Arguments) -> tuple[str, ...]:
    name = LANGUAGES[arguments["language"]]
    return (
        f"Your entire response should be in {name}; no other language is allowed.",
        f"Answer in {name} only.",
        f"Write all of your response in {name}.",
    )


RESPONSE_LANGUAGE = Kind(
    id="language:response_language",
    rules={"language": one_of(*LANGUAGES)},
    is_met=lambda response, given: is_in(response, given["language"]),
    phrasings=_say_language,
    propose=_draw_language,
    topics=frozenset({"language"}),
)

KINDS = (ENGLISH_CAPITAL, ENGLISH_LOWERCASE, CAPITAL_WORD_FREQUENCY, RESPONSE_LANGUAGE)
