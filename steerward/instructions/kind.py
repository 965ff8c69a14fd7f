"""What a kind of instruction is, and the rules that its arguments follow."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from steerward.protocol.errors import InvalidRequest, brief

_MOST = 1_000_000_000

Arguments = Mapping[str, Any]
Rule = Callable[[object], Any]
"""Returns an argument as the checker reads it; a ValueError says what it must be."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a drawn instruction should be."""

    met: bool
    """Whether the response should meet it."""
    order: random.Random
    """Decides between arguments that would do, and between phrasings."""


def _always_fits(arguments: Arguments) -> None:
    """Two arguments of most kinds cannot contradict each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One verifiable instruction: how it is said, checked and made up for a response."""

    id: str
    """Family and name, ``family:name``; of the published kinds, the published one."""
    rules: Mapping[str, Rule]
    """Every argument, by name; all are needed."""
    is_met: Callable[[str, Arguments], bool]
    """Checks a response that is not blank."""
    phrasings: Callable[[Arguments], tuple[str, ...]]
    """The same demand in other words; the first is the plainest."""
    propose: Callable[[str, Wish], Arguments | None]
    """Returns arguments that the response should meet, or not meet; None if there are none.
    What it returns is checked again, and asked for again a few times."""
    topics: frozenset[str] = frozenset()
    """What of a response it decides; two kinds that decide the same do not stand together."""
    fits: Callable[[Arguments], None] = _always_fits
    """Raises a ValueError if arguments, each right, do not go together."""

    @property
    def family(self) -> str:
        """What stands before the colon."""
        return self.id.partition(":")[0]

    def read(self, arguments: Arguments) -> dict[str, Any]:
        """Return the arguments by their rules.

        None stands for an argument that is not there: published rows come with every argument
        of every kind, most of them empty.

        Raises:
            InvalidRequest: If an argument is unknown, missing or breaks its rule. The published
                checkers draw a missing one at random, so that a score would rest on chance.
        """
        given = {name: value for name, value in arguments.items() if value is not None}
        known = ", ".join(self.rules) or "none"
        for name in given:
            if name not in self.rules:
                raise InvalidRequest(
                    f"{self.id} has no argument {brief(str(name))}; its arguments: {known}"
                )
        for name in self.rules:
            if name not in given:
                raise InvalidRequest(f"{self.id} needs the argument {name}; its arguments: {known}")
        try:
            read = {name: _ruled(name, rule, given[name]) for name, rule in self.rules.items()}
            self.fits(read)
        except ValueError as error:
            raise InvalidRequest(f"{self.id}: {error}") from error
        return read


def nothing(response: str, wish: Wish) -> Arguments | None:  # noqa: ARG001
    """Propose no arguments, for a kind that has none."""
    return {}


def whole_number(*, least: int = 0) -> Rule:
    """Return the rule of a count, up to a limit of ours, 1,000,000,000.

    A float that is whole passes: tables keep counts so.
    """

    def rule(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"not a whole number, {brief(repr(value))}")
        # Before any other look at it: Python neither prints nor rounds the largest integers.
        if isinstance(value, int) and abs(value) > _MOST:
            raise ValueError(f"a number of {value.bit_length():,} bits, must be at most {_MOST:,}")
        if not math.isfinite(value) or value != int(value) or value < least:
            raise ValueError(f"{value}, must be a whole number and at least {least}")
        if value > _MOST:
            raise ValueError(f"{value}, must be at most {_MOST:,}")
        return int(value)

    return rule


def one_of(*allowed: str) -> Rule:
    """Return the rule of a word from a closed list."""

    def rule(value: object) -> str:
        if value not in allowed:
            raise ValueError(f"{brief(repr(value))}, must be one of {', '.join(allowed)}")
        return str(value)

    return rule


def text(value: object) -> str:
    """Return a text without the white space around it."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{brief(repr(value))}, must be a text that is not blank")
    return value.strip()


def texts(value: object) -> list[str]:
    """Return a list of texts, in order and each once."""
    if isinstance(value, str) or not isinstance(value, list | tuple) or not value:
        raise ValueError(f"{brief(repr(value))}, must be a list of at least one text")
    return list(dict.fromkeys(text(item) for item in value))


def _ruled(name: str, rule: Rule, value: object) -> Any:
    try:
        return rule(value)
    except ValueError as error:
        raise ValueError(f"{name} is {error}") from error
