r"""Judges of a final answer against the row's gold answer (CGPO, section 4.8: the maths judge).

A final answer is what stands in the last `\boxed{}`, else behind the last `####`, else, for a
number, the last one, and for a text, the whole completion or its last line. What is marked, and a
gold answer that is no prose, must be one number for the judge of numbers; `(3,5)` and
`3\sqrt{2}` are none.
"""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, cast

from steerward.judges.judge import Sample, SampleJudge, Verdict
from steerward.judges.number import MOST_DIGITS, is_prose, last_number_of, only_number
from steerward.protocol.errors import InvalidRequest

_BOX_OR_BRACE = re.compile(r"(?P<box>\\(?:boxed|fbox)\s*+\{)|[{}]")
_MARK = "####"


@dataclass(frozen=True, slots=True, kw_only=True)
class NumericAnswer(SampleJudge):
    r"""Passes a completion whose last number equals the row's gold answer.

    Units, currencies and per cent signs are not compared: 50% equals 50, and 12 m^2 equals 12.
    Fractions and mixed numbers are read as their value: `1\frac{1}{2}` equals 1.5.

    Args:
        column: Holds the gold answer: a number, text that is one, or prose that ends in one.
        absolute_tolerance: Largest difference that passes. The default is ours.
        relative_tolerance: Largest difference that passes, as a share of the gold answer.
        name: Of the judge.
    """

    column: str = "answer"
    absolute_tolerance: float = 1e-6
    relative_tolerance: float = 0.0
    name: str = "numeric_answer"

    def __post_init__(self) -> None:
        tolerances = (self.absolute_tolerance, self.relative_tolerance)
        if not all(0.0 <= tolerance < math.inf for tolerance in tolerances):
            raise InvalidRequest(f"tolerances are {tolerances}; give finite numbers from 0")

    def decide(self, sample: Sample) -> Verdict | None:
        """Return the verdict; -1 where the gold answer is not one number."""
        given = sample.get(self.column)
        if given is None:
            return None
        gold = _gold_number(given)
        if gold is None:
            return -1
        found = last_number(sample.completion)
        if found is None:
            return 0
        tolerance = max(
            Fraction(self.absolute_tolerance), Fraction(self.relative_tolerance) * abs(gold)
        )
        return 1 if abs(found - gold) <= tolerance else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactAnswer(SampleJudge):
    """Passes a completion whose final answer is the row's gold answer.

    White space, a full stop at the end, and Unicode's compatible forms are not compared.

    Args:
        column: Holds the gold answer, or a list of answers of which each is right.
        without_mark: What the answer is of a completion that marks none.
        is_case_sensitive: Whether capitals are compared.
        name: Of the judge.
    """

    column: str = "answer"
    without_mark: Literal["completion", "last_line"] = "completion"
    is_case_sensitive: bool = False
    name: str = "exact_answer"

    def decide(self, sample: Sample) -> Verdict | None:
        """Return the verdict; -1 where the gold answer is empty."""
        given = sample.get(self.column)
        if given is None:
            return None
        golds = {self._plain(marked_answer(gold) or gold) for gold in _texts(given)}
        if not golds or "" in golds:
            return -1
        answer = marked_answer(sample.completion)
        if answer is None:
            lines = sample.completion.strip().splitlines() or [""]
            answer = lines[-1] if self.without_mark == "last_line" else sample.completion
        return 1 if self._plain(answer) in golds else 0

    def _plain(self, text: str) -> str:
        plain = " ".join(unicodedata.normalize("NFKC", text).split()).removesuffix(".").rstrip()
        return plain if self.is_case_sensitive else plain.casefold()


def marked_answer(text: str) -> str | None:
    r"""Return what stands in the last `\boxed{}`, else behind the last `####`; None without."""
    boxed = _last_box(text)
    return _behind_mark(text) if boxed is None else boxed


def last_number(text: str) -> Fraction | None:
    r"""Return the number of the marked answer, else the last of the text; None if there is none.

    A marked answer that is not one number has none: neither that of a box that holds two, a root
    or a variable, nor another of the text. Only `####` before what has no digit, as before a
    heading, and an empty box mark nothing.
    """
    marked = _last_box(text)
    if marked is None:
        marked = _behind_mark(text)
        is_marked = marked is not None and any(character.isdigit() for character in marked)
    else:
        is_marked = marked != ""
    return only_number(marked or "") if is_marked else last_number_of(text)


def _last_box(text: str) -> str | None:
    """Return what stands in the box that starts last, of those that are closed; one pass."""
    # Of each brace that is open: where what stands in it starts, if it is a box.
    opened: list[int | None] = []
    last: tuple[int, int] | None = None
    for found in _BOX_OR_BRACE.finditer(text):
        if found[0] != "}":
            opened.append(found.end() if found["box"] else None)
        elif opened:
            start = opened.pop()
            if start is not None and (last is None or start > last[0]):
                last = start, found.start()
    return None if last is None else text[slice(*last)].strip()


def _behind_mark(text: str) -> str | None:
    _, mark, behind = text.rpartition(_MARK)
    return behind.strip().partition("\n")[0].strip() if mark else None


def _gold_number(given: Any) -> Fraction | None:
    if isinstance(given, str):
        return _gold_number_of_text(given)
    if isinstance(given, bool):
        return None
    if isinstance(given, int):
        return Fraction(given) if abs(given) < 10**MOST_DIGITS else None
    if isinstance(given, float) and math.isfinite(given):
        return Fraction(str(given))
    return None


# Each completion of a group asks for the gold answer of the same row.
@functools.lru_cache(maxsize=1024)
def _gold_number_of_text(text: str) -> Fraction | None:
    if marked_answer(text) is None and not is_prose(text):
        return only_number(text)
    return last_number(text)


def _texts(given: Any) -> list[str]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        return [str(given)]
    return [str(text) for text in cast("Sequence[Any]", given)]
