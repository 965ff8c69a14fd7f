"""Instructions on length: words, sentences and paragraphs, as IFEval has them.

``length_constraints:`` of the published registry (Zhou et al., arXiv:2311.07911, table 4).
"""

from __future__ import annotations

import re

from steerward.instructions.comparison import (
    RELATIONS,
    counted,
    holds,
    limit_and_relation,
    other_count,
)
from steerward.instructions.kind import Arguments, Kind, Wish, one_of, text, whole_number
from steerward.instructions.measure import sentences, words
from steerward.instructions.vocabulary import WORDS

_DIVIDER = re.compile(r"\s?\*\*\*\s?")
_FIRST_WORD_ENDS = re.compile(r"[.,?!'\"]")


def _draw_words(response: str, wish: Wish) -> Arguments | None:
    drawn = limit_and_relation(len(words(response)), wish)
    return drawn and {"num_words": drawn[0], "relation": drawn[1]}


def _say_words(arguments: Arguments) -> tuple[str, ...]:
    amount = f"{arguments['relation']} {counted(arguments['num_words'], 'word')}"
    return (
        f"Answer with {amount}.",
        f"Your response should have {amount}.",
        f"Keep to this length: {amount}.",
    )


NUMBER_WORDS = Kind(
    id="length_constraints:number_words",
    rules={"num_words": whole_number(), "relation": one_of(*RELATIONS)},
    is_met=lambda response, given: holds(
        len(words(response)), given["relation"], given["num_words"]
    ),
    phrasings=_say_words,
    propose=_draw_words,
    topics=frozenset({"words"}),
)


def _draw_sentences(response: str, wish: Wish) -> Arguments | None:
    drawn = limit_and_relation(len(sentences(response)), wish)
    return drawn and {"num_sentences": drawn[0], "relation": drawn[1]}


def _say_sentences(arguments: Arguments) -> tuple[str, ...]:
    amount = f"{arguments['relation']} {counted(arguments['num_sentences'], 'sentence')}"
    return (f"Your response should contain {amount}.", f"Write {amount}.", f"Use {amount}.")


NUMBER_SENTENCES = Kind(
    id="length_constraints:number_sentences",
    rules={"num_sentences": whole_number(), "relation": one_of(*RELATIONS)},
    is_met=lambda response, given: holds(
        len(sentences(response)), given["relation"], given["num_sentences"]
    ),
    phrasings=_say_sentences,
    propose=_draw_sentences,
    topics=frozenset({"sentences"}),
)


def divided_paragraphs(response: str) -> int | None:
    """Return the number of paragraphs that ``***`` parts; None if one in the middle is blank."""
    parts = [part.strip() for part in _DIVIDER.split(response)]
    if not all(parts[1:-1]):
        return None
    return sum(map(bool, parts))


def _draw_divided(response: str, wish: Wish) -> Arguments | None:
    count = divided_paragraphs(response)
    if wish.met:
        return None if count is None else {"num_paragraphs": count}
    return {"num_paragraphs": other_count(count or 1, least=1, order=wish.order)}


def _say_divided(arguments: Arguments) -> tuple[str, ...]:
    amount = counted(arguments["num_paragraphs"], "paragraph")
    divider = "the markdown divider: ***"
    return (
        f"Write exactly {amount}, with paragraphs separated by {divider}",
        f"Your response should have {amount}. Separate paragraphs with {divider}",
    )


NUMBER_PARAGRAPHS = Kind(
    id="length_constraints:number_paragraphs",
    rules={"num_paragraphs": whole_number()},
    is_met=lambda response, given: divided_paragraphs(response) == given["num_paragraphs"],
    phrasings=_say_divided,
    propose=_draw_divided,
    topics=frozenset({"paragraphs", "lines"}),
)


def first_words(response: str) -> tuple[int, list[str]]:
    r"""Return how many parts between ``\n\n`` are not blank, and the first word of every part.

    A word is cut at its first ``. , ? ! ' "``, after such quotes before it, and in small letters.
    """
    parts = [part.split() for part in response.split("\n\n")]
    firsts = [part[0].lstrip("'").lstrip('"') if part else "" for part in parts]
    cut = [_FIRST_WORD_ENDS.split(word, maxsplit=1)[0].lower() for word in firsts]
    return sum(map(bool, parts)), cut


def _first_word_is_met(response: str, arguments: Arguments) -> bool:
    count, firsts = first_words(response)
    # The published checker counts blank parts out, and then counts to the n-th with them in.
    if count != arguments["num_paragraphs"]:
        return False
    return firsts[arguments["nth_paragraph"] - 1] == arguments["first_word"].lower()


def _draw_first_word(response: str, wish: Wish) -> Arguments | None:
    count, firsts = first_words(response)
    nth = wish.order.randint(1, count)
    first = firsts[nth - 1] if wish.met else wish.order.choice(WORDS)
    if not first:
        return None
    return {"num_paragraphs": count, "nth_paragraph": nth, "first_word": first}


def _say_first_word(arguments: Arguments) -> tuple[str, ...]:
    nth, first = arguments["nth_paragraph"], arguments["first_word"]
    amount = counted(arguments["num_paragraphs"], "paragraph")
    return (
        f"Write exactly {amount}, separated by blank lines and by nothing else. "
        f'Paragraph {nth} must start with the word "{first}".',
        f"Your response needs {amount} with two new lines between paragraphs and nowhere else, "
        f'and "{first}" as the first word of paragraph {nth}.',
    )


def _nth_is_within(arguments: Arguments) -> None:
    nth, count = arguments["nth_paragraph"], arguments["num_paragraphs"]
    if nth > count:
        raise ValueError(f"nth_paragraph is {nth}, and there are {count} paragraphs")


NTH_PARAGRAPH_FIRST_WORD = Kind(
    id="length_constraints:nth_paragraph_first_word",
    rules={
        "num_paragraphs": whole_number(least=1),
        "nth_paragraph": whole_number(least=1),
        "first_word": text,
    },
    is_met=_first_word_is_met,
    phrasings=_say_first_word,
    propose=_draw_first_word,
    topics=frozenset({"paragraphs", "lines", "beginning"}),
    fits=_nth_is_within,
)

KINDS = (NUMBER_WORDS, NUMBER_SENTENCES, NUMBER_PARAGRAPHS, NTH_PARAGRAPH_FIRST_WORD)
