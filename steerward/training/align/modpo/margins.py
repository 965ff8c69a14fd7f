"""Margins of preference pairs: rewards of the other objectives, as columns of the data set.

They do not depend on the policy that is trained, so they are computed once and before. A pair
that lacks one ends the run: there is no default reward.

Axis legend: K objectives beside that of the pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from datasets import Dataset
from tqdm import tqdm

from steerward.protocol.errors import DatasetRefused, InvalidRequest, NonFiniteScore, brief
from steerward.training.align.modpo.margin_cache import MarginCache, margin_key

MARGIN_CHOSEN = "margin_chosen"
"""Column of the chosen responses' rewards: a float, or a list with one for each objective."""
MARGIN_REJECTED = "margin_rejected"
"""Column of the rejected ones'."""
SIDES: Mapping[str, str] = {"chosen": MARGIN_CHOSEN, "rejected": MARGIN_REJECTED}
"""Column of margins by that of responses."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response of a row as its reward is asked for; texts or messages, as the row has them."""

    prompt: Any
    text: Any
    columns: Mapping[str, Any]
    """Other columns of the row that the source reads."""


class MarginSource(Protocol):
    """What computes rewards of one or more objectives."""

    @property
    def names(self) -> tuple[str, ...]:
        """Objectives, in order."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the rows that the rewards depend on, beside prompt and response."""
        ...

    def identity(self, name: str) -> str:
        """Return what changes whenever the rewards of an objective would."""
        ...

    def rewards(self, responses: Sequence[Response]) -> Mapping[str, Sequence[float | None]]:
        """Return rewards by objective, one for each response; None where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class _Place:
    """A response and the row that it is of."""

    row: int
    side: str
    response: Response


def with_margins(
    pairs: Dataset,
    sources: Sequence[MarginSource],
    *,
    cache: Path | None = None,
    batch_size: int = 32,
) -> Dataset:
    """Return pairs with their margins, lists in the order of the sources and of their names.

    Args:
        pairs: With `prompt`, `chosen` and `rejected`, texts or messages.
        sources: Of the margins.
        cache: File that keeps them; see `MarginCache`.
        batch_size: Responses that a source is given at once.

    Raises:
        DatasetRefused: If a pair lacks a margin; its row is named.
        NonFiniteScore: If a margin is NaN or infinite.
        InvalidRequest: If two sources give the same objective, or there is none.
    """
    names = margin_names(sources)
    _check_columns(pairs, sources)
    kept = MarginCache(cache)
    sides: dict[str, list[list[float]]] = {side: [[] for _ in pairs] for side in SIDES}
    for source in sources:
        places = list(_places(pairs, source))
        _compute(source, places, kept, batch_size=batch_size)
        for place in places:
            found = [kept[_key(source, name, place.response)] for name in source.names]
            sides[place.side][place.row].extend(found)
    assert all(len(row) == len(names) for rows in sides.values() for row in rows)
    for side, column in SIDES.items():
        if column in pairs.column_names:
            pairs = pairs.remove_columns(column)
        pairs = pairs.add_column(column, sides[side])  # pyright: ignore[reportCallIssue]
    return pairs


def margin_names(sources: Sequence[MarginSource]) -> tuple[str, ...]:
    """Return the objectives of sources in the order of the margins.

    Raises:
        InvalidRequest: If there is none, or one twice.
    """
    names = tuple(name for source in sources for name in source.names)
    if not names or len(set(names)) < len(names):
        raise InvalidRequest(
            f"the margins' sources give {', '.join(map(brief, names)) or 'no objective'}; give at "
            "least one, and each once",
            param="sources",
        )
    return names


def check_margins(pairs: Dataset, *, names: Sequence[str], title: str = "training") -> None:
    """Refuse pairs of which one lacks a margin.

    Args:
        pairs: With the columns of margins.
        names: Objectives of the margins; if there are none, the columns need not be there.
        title: Word for the data set in errors.

    Raises:
        DatasetRefused: With the row.
    """
    if not names:
        return
    for column in SIDES.values():
        if column not in pairs.column_names:
            raise DatasetRefused(
                f"the {title} pairs have no column {column}; compute it with with_margins, or add "
                f"it: {len(names)} numbers a row, of {', '.join(map(brief, names))}"
            )
        for row, value in enumerate(pairs[column]):
            margin_row(value, num=len(names), place=f"the {title} pairs, row {row}: {column}")


def margin_row(value: object, *, num: int, place: str) -> list[float]:
    """Return the margins of one response as a list.

    Args:
        value: A number, or a list of them.
        num: Objectives, K.
        place: Where it stands, for errors.

    Raises:
        DatasetRefused: If one is missing, or is no finite number.
    """
    given: Sequence[Any] = value if isinstance(value, list | tuple) else [value]
    if len(given) != num:
        raise DatasetRefused(
            f"{place} has {len(given)} margins, and there are {num} objectives beside the pairs'; "
            "give one for each"
        )
    for k, one in enumerate(given):
        if isinstance(one, bool) or not isinstance(one, int | float) or not math.isfinite(one):
            told = "missing" if one is None else f"{one!r}, no finite number"
            raise DatasetRefused(f"{place}: number {k} is {told}; every pair needs all its margins")
    return [float(one) for one in given]


def _check_columns(pairs: Dataset, sources: Sequence[MarginSource]) -> None:
    wanted = ["prompt", *SIDES, *(column for source in sources for column in source.columns)]
    for column in wanted:
        if column not in pairs.column_names:
            raise DatasetRefused(
                f"the pairs have no column {column!r}; they have {', '.join(pairs.column_names)}"
            )


def _places(pairs: Dataset, source: MarginSource) -> Iterator[_Place]:
    for row, pair in enumerate(pairs):
        fields: Mapping[str, Any] = pair  # pyright: ignore[reportAssignmentType]
        columns = {name: fields[name] for name in source.columns}
        for side in SIDES:
            yield _Place(row, side, Response(fields["prompt"], fields[side], columns))


def _key(source: MarginSource, name: str, response: Response) -> str:
    return margin_key(
        f"{name}: {source.identity(name)}",
        prompt=response.prompt,
        response=response.text,
        columns=response.columns,
    )


def _compute(
    source: MarginSource, places: Sequence[_Place], kept: MarginCache, *, batch_size: int
) -> None:
    """Compute what is not kept yet; equal responses once."""
    missing: dict[str, _Place] = {}
    for place in places:
        keys = [_key(source, name, place.response) for name in source.names]
        if any(key not in kept for key in keys):
            missing.setdefault(keys[0], place)
    todo = list(missing.values())
    title = f"margins of {', '.join(source.names)}"
    with tqdm(total=len(todo), desc=title, unit="response", mininterval=1.0) as bar:
        for start in range(0, len(todo), batch_size):
            batch = todo[start : start + batch_size]
            found = source.rewards([place.response for place in batch])
            for name in source.names:
                kept.add(list(_checked(source, name, batch, found)))
            bar.update(len(batch))


def _checked(
    source: MarginSource,
    name: str,
    batch: Sequence[_Place],
    found: Mapping[str, Sequence[float | None]],
) -> Iterator[tuple[str, float]]:
    values = found.get(name)
    if values is None or len(values) != len(batch):
        told = "nothing" if values is None else f"{len(values)} rewards"
        raise DatasetRefused(
            f"the source of {brief(name)!r} gave {told} for {len(batch)} responses; it must give "
            "one each"
        )
    for place, value in zip(batch, values, strict=True):
        where = f"row {place.row}: the {place.side} response"
        if value is None:
            raise DatasetRefused(
                f"{where} has no reward of {brief(name)!r}: its source does not apply to it, or "
                "does not read texts as long; leave the pair out, or take another source"
            )
        if not math.isfinite(value):
            raise NonFiniteScore(f"{where} has a reward of {brief(name)!r} of {value}")
        yield _key(source, name, place.response), float(value)
