"""What is counted in a response: words, sentences, tokens, blocks."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+")
# A run of stops is read once, from its first: else a text of nothing but stops takes a square.
_STOP = re.compile(r"(?<![.!?…])[.!?…]++[\"'”’)\]*]*+(?=\s)|[。！？]+[」』”]*")
_LAST_WORD = re.compile(r"(?:[^\W\d_]+\.)*[^\W\d_]+\.$")
_OPENING = "\"'“‘([*_«"
_TITLES = frozenset(
    (
        *("mr.", "mrs.", "ms.", "dr.", "prof.", "st.", "gen.", "rep.", "sen.", "vs.", "e.g."),
        *("i.e.", "cf.", "al.", "u.s.", "u.k.", "jan.", "feb.", "apr.", "aug."),
        *("sept.", "oct.", "nov.", "dec."),
    )
)
"""Abbreviations that end no sentence."""
_BEFORE_NUMBERS = frozenset(("no.", "fig."))
_ABBREVIATIONS = frozenset(("etc.", "inc.", "ltd.", "co.", "corp.", "sr.", "jr.", "a.m.", "p.m."))
"""Abbreviations that end one before a capital letter."""
_TOKEN = re.compile(
    r"(?:[^\W\d_]\.){2,}"  # U.S. is one token
    r"|[^\W_]+(?=[nN]['’][tT]\b)|[nN]['’][tT]\b"  # DO and N'T
    r"|['’](?:[sSmMdD]|[lL][lL]|[rR][eE]|[vV][eE])\b"  # 'M, 'LL
    r"|\w+(?:[-.&/]\w+|['’](?!(?:[sSmMdD]|[lL][lL]|[rR][eE]|[vV][eE])\b)\w+)*"  # re-do, O'Neil
)
_BLANK_LINES = re.compile(r"\n[^\S\n]*\n\s*")


def words(response: str) -> list[str]:
    r"""Return the words, runs of ``\w`` as the published counter takes them."""
    return _WORD.findall(response)


def plain_words(response: str) -> list[str]:
    """Return the words of five or more letters, in small letters, in order and each once."""
    found = (word.lower() for word in words(response) if len(word) > 4 and word.isalpha())
    return list(dict.fromkeys(found))


def tokens(response: str) -> list[str]:
    """Return the words as the Penn Treebank splits them: clitics apart, hyphens within.

    The published counter uses `nltk.word_tokenize`; this is an own rule in its place. It leaves
    punctuation out, which has no case.
    """
    return _TOKEN.findall(response)


def sentences(response: str) -> list[str]:
    """Return the sentences of a response.

    The published counter uses nltk's English Punkt model; this is an own rule in its place. A
    sentence ends at ``.``, ``!``, ``?`` or ``…`` before white space, and after ``。``, ``！``,
    ``？``; not at the stop of an initial, of a number at the start of a line, which Punkt often
    counts, or of one of a few English abbreviations; not at dots before a small letter. A line's
    end alone ends no sentence, as with Punkt. An abbreviation that is in no list ends one.
    """
    found: list[str] = []
    start = 0
    for stop in _STOP.finditer(response):
        if _ends(response, start, stop):
            found.append(response[start : stop.end()].strip())
            start = stop.end()
    found.append(response[start:].strip())
    return [sentence for sentence in found if sentence]


def _ends(response: str, start: int, stop: re.Match[str]) -> bool:
    if not stop.group().startswith((".", "…")):
        return True
    # Windows, so that a text of nothing but stops is not read again at each.
    following = response[stop.end() : stop.end() + 80].lstrip().lstrip(_OPENING)
    if stop.group().startswith(("..", "…")):
        return not following[:1].islower()
    before = response[max(start, stop.start() - 40) : stop.start() + 1]
    is_item = before.rpartition("\n")[2].strip()[:-1].isdigit()
    return not is_item and _word_ends(before, following[:1])


def _word_ends(before: str, next_character: str) -> bool:
    """Return whether the stop at the end of a text is more than that of an abbreviation."""
    found = _LAST_WORD.search(before)
    word = found.group() if found else ""
    # "I." ends a sentence; other single letters are initials.
    is_initial = len(word) == 2 and word.isupper() and word != "I."
    if word.lower() in _ABBREVIATIONS:
        return next_character.isupper()
    if word.lower() in _BEFORE_NUMBERS:
        return not next_character.isdigit()
    return not is_initial and word.lower() not in _TITLES


def blocks(response: str) -> list[str]:
    """Return the paragraphs that blank lines part."""
    return [block for block in _BLANK_LINES.split(response.strip()) if block.strip()]
