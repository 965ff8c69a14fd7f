"""Which completions must not be learned, whatever their reward."""

from __future__ import annotations

import regex

from steerward.jobs.rsf.statistics import repetition
from steerward.protocol.errors import InvalidRequest
from steerward.protocol.rsf import RsfSettings

EMPTY, UNFINISHED, TOO_SHORT, REPETITIVE = "empty", "unfinished", "too_short", "repetitive"
NO_MATCH, FORBIDDEN_MATCH = "no_match", "forbidden_match"
FILTER_REASONS = frozenset({EMPTY, UNFINISHED, TOO_SHORT, REPETITIVE, NO_MATCH, FORBIDDEN_MATCH})

_MATCH_TIMEOUT_S = 0.1


class Filters:
    """The filters of a job.

    Args:
        settings: The job's.

    Raises:
        InvalidRequest: If a pattern is no regular expression.
    """

    def __init__(self, settings: RsfSettings) -> None:
        self._settings = settings
        self._must_match = _compiled(settings.must_match, "must_match")
        self._must_not_match = _compiled(settings.must_not_match, "must_not_match")

    def why_not(self, text: str, *, tokens: int | None, is_finished: bool) -> str | None:
        """Return why a completion is left out; None: it is not.

        Args:
            text: The completion.
            tokens: How many, the closing one among them; None: words are counted.
            is_finished: Whether it ended by itself.

        Raises:
            InvalidRequest: If a pattern takes too long to match.
        """
        settings = self._settings
        if not text.strip():
            return EMPTY
        if settings.require_finished and not is_finished:
            return UNFINISHED
        if (len(text.split()) if tokens is None else tokens) < settings.min_tokens:
            return TOO_SHORT
        if settings.max_repetition is not None and repetition(text) > settings.max_repetition:
            return REPETITIVE
        return self._why_not_by_pattern(text)

    def _why_not_by_pattern(self, text: str) -> str | None:
        if self._must_match and not _matches(self._must_match, text, "must_match"):
            return NO_MATCH
        if self._must_not_match and _matches(self._must_not_match, text, "must_not_match"):
            return FORBIDDEN_MATCH
        return None


def _compiled(pattern: str | None, name: str) -> regex.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        return regex.compile(pattern)
    except (regex.error, RecursionError, ValueError, OverflowError) as error:
        raise InvalidRequest(
            f"{name} is not a regular expression: {error}; mend it or leave it out",
            param=f"method.rsf.{name}",
        ) from None


def _matches(pattern: regex.Pattern[str], text: str, name: str) -> bool:
    try:
        return pattern.search(text, timeout=_MATCH_TIMEOUT_S) is not None
    except TimeoutError:
        raise InvalidRequest(
            f"{name} takes longer than {_MATCH_TIMEOUT_S:g} s on a completion of {len(text):,} "
            "characters; write it without repeats inside of repeats",
            param=f"method.rsf.{name}",
        ) from None
