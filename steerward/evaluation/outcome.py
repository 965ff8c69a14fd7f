"""What a scoring rule makes of scored rows: numbers by name, and why they may be incomplete."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from steerward.evaluation.rows import ReadRow, ScoredRow


@dataclass(frozen=True, slots=True)
class Number:
    """One number of a benchmark."""

    name: str
    value: float | None
    """As a fraction, 1 for all right; None where it is not defined by what there is."""
    rows: int
    """Rows that it rests on."""
    failed: int = 0
    """Rows that should count and have no scores."""
    ties: int = 0
    """Rows in which a better and a worse answer have the same score and it mattered."""


@dataclass(frozen=True, slots=True)
class Group:
    """Numbers of one kind, such as the subsets."""

    name: str
    numbers: tuple[Number, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """All numbers of one benchmark."""

    headlines: tuple[Number, ...]
    """The numbers that are published as the result; the first is the one that is meant."""
    groups: tuple[Group, ...]
    missing: tuple[str, ...] = ()
    """What the headline needs and has no scored row of."""
    notes: tuple[str, ...] = ()
    """What readers should know before they compare."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How a benchmark is scored, and where that is written."""

    version: str
    """Changes when the same scores would give other numbers."""
    sources: tuple[str, ...]
    """Repository and file, each."""
    ties: str
    """What equal scores count as."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark: its format and its rule."""

    name: str
    title: str
    rule: Rule
    read_row: ReadRow
    measure: Callable[[Sequence[ScoredRow]], Outcome]


def by_subset(rows: Sequence[ScoredRow]) -> dict[str, list[ScoredRow]]:
    """Return the rows of each subset, subsets in the order of their first rows."""
    found: dict[str, list[ScoredRow]] = {}
    for row in rows:
        found.setdefault(row.row.subset, []).append(row)
    return found


def scored(rows: Sequence[ScoredRow]) -> list[ScoredRow]:
    """Return the rows that have scores."""
    return [row for row in rows if row.scores is not None]


def mean_number(
    name: str, rows: Sequence[ScoredRow], *, points: Callable[[ScoredRow], float]
) -> Number:
    """Return the mean of the points of the scored rows."""
    counted = scored(rows)
    value = sum(map(points, counted)) / len(counted) if counted else None
    return Number(name, value, len(counted), len(rows) - len(counted), sum(map(is_tied, counted)))


def combined(name: str, value: float | None, parts: Sequence[Number]) -> Number:
    """Return a number that is made of others, with what they rest on."""
    return Number(
        name,
        value,
        sum(part.rows for part in parts),
        sum(part.failed for part in parts),
        sum(part.ties for part in parts),
    )


def plain_mean(values: Sequence[float | None]) -> float | None:
    """Return the mean, or None if there is no value or one is undefined."""
    defined = [value for value in values if value is not None]
    if not defined or len(defined) < len(values):
        return None
    return sum(defined) / len(defined)


def chosen_wins(row: ScoredRow) -> float:
    """Return 1 if the better answer of a pair has the higher score, 0 if not, also if equal."""
    return float(row.chosen[0] > row.rejected[0])


def is_tied(row: ScoredRow) -> bool:
    """Return whether the best of the worse answers equals the best of the better ones."""
    return max(row.chosen) == max(row.rejected)
