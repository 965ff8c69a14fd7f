r"""Judges of a final answer against the row's gold answer (CGPO, section 4.8: the maths judge).

A final answer is what stands in the last `\boxed{}`, else behind the last `####`, else, for a
number, the last one, and for a text, the whole completion or its last line.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, cast

from steerward.judges.judge import Sample, SampleJudge, Verdict
from steerward.protocol.errors import InvalidRequest

_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_MARK = "####"
_NUMBER = re.compile(
    r"""(?P<sign>(?<![A-Za-z0-9_)])[-+−])?       # no sign behind a number: 7-2
        [$€£]?
        (?<![A-Za-z0-9_])(?P<number>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)
        (?P<exponent>[eE][-+]?\d{1,3}(?!\d))?
        (?:\s?/\s?(?P<divisor>\d+))?""",
    re.VERBOSE,
)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_SPACING = re.compile(r"\\[!,;: ]|\{,\}|\\left|\\right")
# Python itself reads no longer ones.
_MOST_DIGITS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class NumericAnswer(SampleJudge):
    r"""Passes a completion whose last number equals the row's gold answer.

    Units, currencies and per cent signs are not compared: 50% equals 50. Fractions are read as
    their value: `\frac{1}{2}` equals 0.5.

    Args:
        column: Holds the gold answer: a number, or text that ends in one.
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
        """Return the verdict; -1 where the gold answer has no number."""
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
    for start in reversed([found.end() for found in _BOXED.finditer(text)]):
        inside = _until_closed(text, start)
        if inside is not None:
            return inside.strip()
    _, mark, behind = text.rpartition(_MARK)
    return behind.strip().partition("\n")[0].strip() if mark else None


def last_number(text: str) -> Fraction | None:
    """Return the last number of the marked answer, else of the text; None if there is none."""
    marked = marked_answer(text)
    for part in (marked, text) if marked is not None else (text,):
        plain = _SPACING.sub(lambda found: "," if found[0] == "{,}" else "", part)
        numbers = [_value(found) for found in _NUMBER.finditer(_FRACTION.sub(r"\1/\2", plain))]
        if numbers:
            return numbers[-1]
    return None


def _until_closed(text: str, start: int) -> str | None:
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start:place]
    return None


def _value(found: re.Match[str]) -> Fraction | None:
    number = found["number"].replace(",", "")
    divisor = found["divisor"] or "1"
    if len(number) + len(divisor) > _MOST_DIGITS or not int(divisor):
        return None
    value = Fraction(number + (found["exponent"] or "")) / int(divisor)
    return -value if found["sign"] in ("-", "−") else value


def _gold_number(given: Any) -> Fraction | None:
    if isinstance(given, str):
        return last_number(given)
    if isinstance(given, int | float) and not isinstance(given, bool) and math.isfinite(given):
        return Fraction(str(given))
    return None


def _texts(given: Any) -> list[str]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        return [str(given)]
    return [str(text) for text in cast("Sequence[Any]", given)]
