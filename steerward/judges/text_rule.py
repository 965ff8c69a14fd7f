"""Judges of the form of a text: its length, its keywords, its pattern, its language.

Each has its rule for all rows, or reads it from a column of the row, which then goes first. Where
neither says anything, the judge does not apply.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from steerward.judges.judge import Sample, SampleJudge, Verdict
from steerward.protocol.errors import InvalidRequest, brief

_PATTERN_TIMEOUT_S = 2.0
_MOST_PATTERN_CHARACTERS = 1000
# What must be repeated is written out when an expression is compiled, which nothing interrupts.
_LEAST_COUNT = re.compile(r"\{\s*+(\d++)")
_MOST_REPEATS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Length(SampleJudge):
    """Passes a completion whose length is within limits, both included.

    Args:
        unit: What is counted; words are what white space separates.
        minimum: Smallest length; None: none, unless the row has one.
        maximum: Largest length; None: none, unless the row has one.
        minimum_column: Holds a row's own smallest length.
        maximum_column: Holds a row's own largest length.
        name: Of the judge.
    """

    unit: Literal["characters", "words"] = "words"
    minimum: int | None = None
    maximum: int | None = None
    minimum_column: str | None = None
    maximum_column: str | None = None
    name: str = "length"

    def __post_init__(self) -> None:
        columns = (self.minimum_column, self.maximum_column)
        if all(rule is None for rule in (self.minimum, self.maximum, *columns)):
            raise InvalidRequest(
                "the length has no limit; give minimum, maximum, or a column that holds one"
            )
        lower, upper = self.minimum, self.maximum
        if lower is not None and upper is not None and lower > upper:
            raise InvalidRequest(
                f"no length is at least {self.minimum} and at most {self.maximum}; swap the limits"
            )

    def decide(self, sample: Sample) -> Verdict | None:
        """Return the verdict; -1 where a row's limit is no whole number."""
        lower = _first(sample.get(self.minimum_column), self.minimum)
        upper = _first(sample.get(self.maximum_column), self.maximum)
        limits = [limit for limit in (lower, upper) if limit is not None]
        if not limits:
            return None
        if not all(_is_whole(limit) for limit in limits):
            return -1
        text = sample.completion
        length = len(text.split()) if self.unit == "words" else len(text)
        is_short = lower is not None and length < lower
        return 0 if is_short or (upper is not None and length > upper) else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Keywords(SampleJudge):
    """Passes a completion that has every required keyword and no forbidden one.

    Args:
        required: Keywords that must be there.
        forbidden: Keywords that must not.
        required_column: Holds a row's own required keywords: a text or a list of texts.
        forbidden_column: Holds a row's own forbidden keywords.
        are_whole_words: Whether `art` is not found in `start`.
        is_case_sensitive: Whether capitals are compared.
        name: Of the judge.
    """

    required: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    required_column: str | None = None
    forbidden_column: str | None = None
    are_whole_words: bool = True
    is_case_sensitive: bool = False
    name: str = "keywords"

    def __post_init__(self) -> None:
        fixed = (*self.required, *self.forbidden)
        if not fixed and self.required_column is None and self.forbidden_column is None:
            raise InvalidRequest(
                "there are no keywords; give required, forbidden, or a column that holds some"
            )
        if not all(word.strip() for word in fixed):
            raise InvalidRequest("a keyword is empty, and every text has it; leave it out")

    def decide(self, sample: Sample) -> Verdict | None:
        """Return the verdict; -1 where a row's keywords are not texts."""
        required = _words(sample.get(self.required_column), self.required)
        forbidden = _words(sample.get(self.forbidden_column), self.forbidden)
        if required is None or forbidden is None:
            return -1
        if not required and not forbidden:
            return None
        has_all = all(self._has(sample.completion, word) for word in required)
        return 1 if has_all and not any(self._has(sample.completion, w) for w in forbidden) else 0

    def _has(self, text: str, word: str) -> bool:
        pattern = re.escape(word.strip())
        if self.are_whole_words:
            pattern = rf"(?<!\w){pattern}(?!\w)"
        return re.search(pattern, text, 0 if self.is_case_sensitive else re.IGNORECASE) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern(SampleJudge):
    """Passes a completion that matches a regular expression.

    The expressions are those of the package regex, which end when they take too long; such a
    completion counts as a failure of the judge. They have at most 1,000 characters, and smallest
    counts of repeats whose product is at most 100,000; both limits are ours.

    Args:
        pattern: For all rows; None: only those of rows.
        column: Holds a row's own expression.
        is_whole: Whether the whole completion must match, white space at its ends apart, and not
            a part of it.
        must_match: False passes what does not match.
        name: Of the judge.

    Raises:
        InvalidRequest: If there is no expression, or it is none, or beyond the limits.
    """

    pattern: str | None = None
    column: str | None = None
    is_whole: bool = False
    must_match: bool = True
    name: str = "pattern"

    def __post_init__(self) -> None:
        if self.pattern is None and self.column is None:
            raise InvalidRequest("there is no pattern; give pattern, or a column that holds one")
        if self.pattern is not None:
            _compiled(self.pattern)

    def decide(self, sample: Sample) -> Verdict | None:
        """Return the verdict; -1 where a row's expression is none, or takes too long."""
        pattern = _first(sample.get(self.column), self.pattern)
        if pattern is None:
            return None
        try:
            compiled = _compiled(pattern)
            find = compiled.fullmatch if self.is_whole else compiled.search
            text = sample.completion.strip() if self.is_whole else sample.completion
            is_found = find(text, timeout=_PATTERN_TIMEOUT_S) is not None
        except (InvalidRequest, TimeoutError):
            return -1
        return 1 if is_found is self.must_match else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Language(SampleJudge):
    """Passes a completion that is in a language, as `steerward.instructions` tells them.

    Args:
        language: Its ISO 639-1 code for all rows, such as `en`; None: only those of rows.
        column: Holds a row's own code.
        name: Of the judge.

    Raises:
        InvalidRequest: If there is no language, or it is not known.
    """

    language: str | None = None
    column: str | None = None
    name: str = "language"

    def __post_init__(self) -> None:
        if self.language is None and self.column is None:
            raise InvalidRequest("there is no language; give language, or a column that holds one")
        if self.language is not None:
            _check_language(self.language)

    def decide(self, sample: Sample) -> Verdict | None:
        """Return the verdict.

        Raises:
            InvalidRequest: If the row's language is not known.
        """
        from steerward.instructions.language import is_in

        code = _first(sample.get(self.column), self.language)
        if code is None:
            return None
        _check_language(code)
        return 1 if is_in(sample.completion, code) else 0


def _first(own: Any, fixed: Any) -> Any:
    return fixed if own is None else own


def _is_whole(limit: Any) -> bool:
    return isinstance(limit, int | float) and not isinstance(limit, bool) and limit == limit // 1


def _words(own: Any, fixed: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return a row's own keywords, or the fixed ones; None if they are not texts."""
    if own is None:
        return fixed
    words = (own,) if isinstance(own, str) else own
    if not isinstance(words, Sequence):
        return None
    found = tuple(cast("Sequence[Any]", words))
    return found if all(isinstance(word, str) and word.strip() for word in found) else None


@functools.lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    try:
        import regex
    except ImportError as error:
        raise ImportError(
            "patterns need 'regex', which is not installed; run: pip install 'steerward[server]'"
        ) from error
    _check_size(pattern)
    try:
        return regex.compile(pattern)
    except RecursionError:
        raise InvalidRequest(
            f"the pattern {brief(repr(pattern))} is nested deeper than can be read; make it flatter"
        ) from None
    except (regex.error, ValueError, OverflowError) as error:
        raise InvalidRequest(f"{brief(repr(pattern))} is no regular expression: {error}") from None


def _check_size(pattern: Any) -> None:
    if not isinstance(pattern, str):
        raise InvalidRequest(
            f"a value of type {type(pattern).__name__} is no regular expression; give a text"
        )
    if len(pattern) > _MOST_PATTERN_CHARACTERS:
        raise InvalidRequest(
            f"the pattern has {len(pattern):,} characters, limit {_MOST_PATTERN_CHARACTERS:,}; "
            "shorten it"
        )
    repeats = math.prod(max(int(count), 1) for count in _LEAST_COUNT.findall(pattern))
    if repeats > _MOST_REPEATS:
        raise InvalidRequest(
            f"the smallest counts in the pattern's braces multiply to {brief(f'{repeats:,}')}, "
            f"limit {_MOST_REPEATS:,}; lower them"
        )


def _check_language(code: Any) -> None:
    from steerward.instructions.language import LANGUAGES

    if code not in LANGUAGES:
        raise InvalidRequest(
            f"{brief(repr(code))} is no language known here; these are: {', '.join(LANGUAGES)}"
        )
