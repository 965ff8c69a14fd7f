"""Instructions on length beyond the published ones: ranges, exact counts, longest parts."""

from __future__ import annotations

import math

from steerward.instructions.comparison import (
    RELATIONS,
    counted,
    holds,
    limit_and_relation,
    other_count,
)
from steerward.instructions.kind import Arguments, Kind, Wish, nothing, one_of, whole_number
from steerward.instructions.measure import blocks, sentences, words

_ABOUT = 0.1
"""Share of the asked number of words by which a response may miss it. Ours."""


def _draw_between(response: str, wish: Wish) -> Arguments:
    count = len(words(response))
    below, above = max(2, round(count * 0.3)), max(2, round(count * 0.3))
    if wish.met:
        least, most = (
            max(0, count - wish.order.randint(0, below)),
            count + wish.order.randint(0, above),
        )
    elif wish.order.random() < 0.5 or count == 0:
        least = count + wish.order.randint(1, above)
        most = least + wish.order.randint(1, above)
    else:
        most = max(0, count - wish.order.randint(1, below))
        least = max(0, most - wish.order.randint(1, below))
    return {"least": least, "most": most}


def _say_between(arguments: Arguments) -> tuple[str, ...]:
    least, most = arguments["least"], arguments["most"]
    return (
        f"Answer with between {least} and {most} words.",
        f"Use no fewer than {least} and no more than {most} words.",
    )


def _is_range(arguments: Arguments) -> None:
    if arguments["least"] > arguments["most"]:
        raise ValueError(f"least is {arguments['least']}, above most, {arguments['most']}")


WORDS_BETWEEN = Kind(
    id="steerward:words_between",
    rules={"least": whole_number(), "most": whole_number()},
    is_met=lambda response, given: given["least"] <= len(words(response)) <= given["most"],
    phrasings=_say_between,
    propose=_draw_between,
    topics=frozenset({"words"}),
    fits=_is_range,
)


def _draw_about(response: str, wish: Wish) -> Arguments:
    count = len(words(response))
    share = wish.order.uniform(0.95, 1.05) if wish.met else wish.order.choice((0.5, 0.7, 1.4, 2.0))
    away = 0 if wish.met else (2 if share > 1 else 0)
    return {"num_words": max(1, round(count * share) + away)}


def _say_about(arguments: Arguments) -> tuple[str, ...]:
    count = arguments["num_words"]
    return (
        f"Write about {counted(count, 'word')}, at most a tenth more or fewer.",
        f"Aim for {counted(count, 'word')}; a tenth more or fewer is fine.",
    )


WORDS_ABOUT = Kind(
    id="steerward:words_about",
    rules={"num_words": whole_number(least=1)},
    is_met=lambda response, given: (
        abs(len(words(response)) - given["num_words"]) <= math.floor(_ABOUT * given["num_words"])
    ),
    phrasings=_say_about,
    propose=_draw_about,
    topics=frozenset({"words"}),
)


def _draw_exactly(response: str, wish: Wish) -> Arguments:
    count = len(sentences(response))
    return {"num_sentences": count if wish.met else other_count(count, least=1, order=wish.order)}


def _say_exactly(arguments: Arguments) -> tuple[str, ...]:
    amount = counted(arguments["num_sentences"], "sentence")
    return (f"Answer in exactly {amount}.", f"Your response should be {amount}, no more or fewer.")


SENTENCES_EXACTLY = Kind(
    id="steerward:sentences_exactly",
    rules={"num_sentences": whole_number(least=1)},
    is_met=lambda response, given: len(sentences(response)) == given["num_sentences"],
    phrasings=_say_exactly,
    propose=_draw_exactly,
    topics=frozenset({"sentences"}),
)


def _draw_blocks(response: str, wish: Wish) -> Arguments | None:
    drawn = limit_and_relation(len(blocks(response)), wish)
    return drawn and {"num_paragraphs": drawn[0], "relation": drawn[1]}


def _say_blocks(arguments: Arguments) -> tuple[str, ...]:
    amount = f"{arguments['relation']} {counted(arguments['num_paragraphs'], 'paragraph')}"
    return (
        f"Write {amount}, with a blank line between paragraphs.",
        f"Your response should have {amount}; separate them with blank lines.",
    )


BLANK_LINE_PARAGRAPHS = Kind(
    id="steerward:blank_line_paragraphs",
    rules={"num_paragraphs": whole_number(), "relation": one_of(*RELATIONS)},
    is_met=lambda response, given: holds(
        len(blocks(response)), given["relation"], given["num_paragraphs"]
    ),
    phrasings=_say_blocks,
    propose=_draw_blocks,
    topics=frozenset({"paragraphs", "lines"}),
)


def _limit_of_longest(longest: int, wish: Wish) -> int | None:
    spread = max(1, round(longest * 0.3))
    if wish.met:
        return longest + wish.order.randint(0, spread)
    return longest - wish.order.randint(1, min(spread, longest - 1)) if longest > 1 else None


def _longest_sentence(response: str) -> int:
    return max((len(words(sentence)) for sentence in sentences(response)), default=0)


def _draw_sentence_length(response: str, wish: Wish) -> Arguments | None:
    limit = _limit_of_longest(_longest_sentence(response), wish)
    return None if limit is None else {"most_words": limit}


def _say_sentence_length(arguments: Arguments) -> tuple[str, ...]:
    amount = counted(arguments["most_words"], "word")
    return (
        f"No sentence may have more than {amount}.",
        f"Keep every sentence to {amount} or fewer.",
    )


SENTENCE_LENGTH = Kind(
    id="steerward:sentence_length",
    rules={"most_words": whole_number(least=1)},
    is_met=lambda response, given: _longest_sentence(response) <= given["most_words"],
    phrasings=_say_sentence_length,
    propose=_draw_sentence_length,
)


def _longest_word(response: str) -> int:
    return max(map(len, words(response)), default=0)


def _draw_word_length(response: str, wish: Wish) -> Arguments | None:
    limit = _limit_of_longest(_longest_word(response), wish)
    return None if limit is None else {"most_letters": limit}


def _say_word_length(arguments: Arguments) -> tuple[str, ...]:
    amount = counted(arguments["most_letters"], "letter")
    return (f"Use no word of more than {amount}.", f"Every word must have {amount} or fewer.")


WORD_LENGTH = Kind(
    id="steerward:word_length",
    rules={"most_letters": whole_number(least=1)},
    is_met=lambda response, given: _longest_word(response) <= given["most_letters"],
    phrasings=_say_word_length,
    propose=_draw_word_length,
)

SINGLE_LINE = Kind(
    id="steerward:single_line",
    rules={},
    is_met=lambda response, _: len(response.strip().splitlines()) == 1,
    phrasings=lambda _: (
        "Write your whole response on one line.",
        "Do not use any line breaks.",
    ),
    propose=nothing,
    topics=frozenset({"lines"}),
)

KINDS = (
    WORDS_BETWEEN,
    WORDS_ABOUT,
    SENTENCES_EXACTLY,
    BLANK_LINE_PARAGRAPHS,
    SENTENCE_LENGTH,
    WORD_LENGTH,
    SINGLE_LINE,
)
