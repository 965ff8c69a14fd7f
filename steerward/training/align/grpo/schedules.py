"""Factors of a reward's weight that change while a policy is trained.

They change the weight and never the reward: the rewards in the log stay what they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from steerward.protocol.errors import InvalidRequest


class Schedule(Protocol):
    """A factor by the share of training that is done."""

    def __call__(self, share: float, /) -> float:
        """Return the factor at a share of 0, the start, to 1, the end."""
        ...


@dataclass(frozen=True, slots=True)
class Constant:
    """The same factor all the time."""

    value: float = 1.0

    def __call__(self, share: float, /) -> float:
        """Return the factor."""
        _check_share(share)
        return self.value


@dataclass(frozen=True, slots=True)
class _Between:
    """From one factor to another, over a part of training."""

    start: float
    end: float
    begin: float = 0.0
    """Share of training before which the factor is `start`."""
    finish: float = 1.0
    """Share of training after which it is `end`."""

    def __post_init__(self) -> None:
        _check_span(self.begin, self.finish)


class Linear(_Between):
    """A straight line from one factor to another."""

    __slots__ = ()

    def __call__(self, share: float, /) -> float:
        """Return the factor at a share of training."""
        done = _done(share, self.begin, self.finish)
        return self.start + (self.end - self.start) * done


class Cosine(_Between):
    """Half a cosine from one factor to another: slow at both ends."""

    __slots__ = ()

    def __call__(self, share: float, /) -> float:
        """Return the factor at a share of training."""
        done = _done(share, self.begin, self.finish)
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * done)) / 2


def _done(share: float, begin: float, finish: float) -> float:
    _check_share(share)
    return min(max((share - begin) / (finish - begin), 0.0), 1.0)


def _check_share(share: float) -> None:
    if not 0.0 <= share <= 1.0:
        raise InvalidRequest(f"share {share} of training is not between 0 and 1", param="share")


def _check_span(begin: float, finish: float) -> None:
    if not 0.0 <= begin < finish <= 1.0:
        raise InvalidRequest(
            f"a schedule from {begin} to {finish} of training has no length within it; give "
            "0 <= begin < finish <= 1",
            param="begin",
        )
