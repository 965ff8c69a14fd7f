"""Margins that the rows bring with them: `margin_chosen` and `margin_rejected` beside each pair."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

from steerward.protocol.errors import DatasetRefused, brief
from steerward.training.align.modpo.margins import SIDES
from steerward.training.align.rows import PairRow


def has_margins(row: PairRow) -> bool:
    """Return whether a row brings margins."""
    return any(column in row.columns for column in SIDES.values())


def row_margins(
    rows: Sequence[PairRow], weights: Mapping[str, float], *, elsewhere: Collection[str] = ()
) -> dict[str, list[list[float]]]:
    """Return the margins of rows by column; where less is better, with the other sign.

    Args:
        rows: Of which each brings a number for each objective: objects by name, lists in the
            order of the objectives, or a single number.
        weights: Of these objectives.
        elsewhere: Objectives whose margins come from another place.

    Raises:
        DatasetRefused: If a row lacks some, or has some that come from another place.
    """
    return {
        column: [
            _margins(row.columns.get(column), weights, elsewhere, f"pair {place} has {column}")
            for place, row in enumerate(rows)
        ]
        for column in SIDES.values()
    }


def _margins(
    given: Any, weights: Mapping[str, float], elsewhere: Collection[str], place: str
) -> list[float]:
    twice = [name for name in elsewhere if isinstance(given, Mapping) and name in given]
    if twice:
        raise DatasetRefused(
            f"{place} of {', '.join(map(brief, twice))}, whose margins come from adapters; leave "
            "them out in one of the two places"
        )
    values = _listed(given, list(weights))
    if len(values) != len(weights) or not all(_is_number(value) for value in values):
        if not weights:
            raise DatasetRefused(
                f"{place} {values}, and all margins come from adapters; leave the column out"
            )
        raise DatasetRefused(
            f"{place} {values}, and the margins of the rows are {', '.join(weights)}; give a "
            "number for each in every pair, or leave the columns out of all"
        )
    signs = [math.copysign(1.0, weight) for weight in weights.values()]
    return [sign * float(value) for sign, value in zip(signs, values, strict=True)]


def _listed(value: Any, names: Sequence[str]) -> list[Any]:
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        return [fields.get(name) for name in names]
    return list(cast("Sequence[Any]", value)) if isinstance(value, list | tuple) else [value]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
