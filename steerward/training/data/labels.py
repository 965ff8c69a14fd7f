"""Which ratings teach which objective, and the labels they give.

An objectives file is a JSON object: objective name -> list of label sources. A source is an
attribute of a data set with the range that maps to 0..1, something `derived` from the response,
or a `category` of preference pairs that are about this objective.

Axis legend: N rated responses, K objectives.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator
from torch import Tensor

from steerward.protocol.errors import DatasetRefused
from steerward.protocol.validation import invalid_request
from steerward.training.data.rows import RatedResponse

_DERIVED: Mapping[str, Callable[[str], float]] = {
    "log_characters": lambda response: math.log(1 + len(response)),
}


class LabelSource(BaseModel):
    """One origin of an objective's labels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float = 0.0
    """Value that becomes label 0."""
    high: float = 1.0
    """Value that becomes label 1."""
    source: str | None = None
    attribute: str | None = None
    derived: Literal["log_characters"] | None = None
    """Computed from the response itself: log of 1 + its number of characters."""
    category: str | None = None
    """Category of preference pairs: the preferred response has more of this objective."""

    @model_validator(mode="after")
    def _is_one_kind(self) -> LabelSource:
        is_rating = self.source is not None and self.attribute is not None
        if [is_rating, self.derived is not None, self.category is not None].count(True) != 1:
            raise ValueError("give source and attribute, or derived, or category")
        if self.low == self.high:
            raise ValueError("low and high must differ")
        return self

    def label(self, row: RatedResponse) -> float | None:
        """Return the label this source gives a row, or None."""
        if self.derived is not None:
            value = _DERIVED[self.derived](row.response)
        elif row.source == self.source and self.attribute in row.ratings:
            value = row.ratings[self.attribute]
        else:
            return None
        return (value - self.low) / (self.high - self.low)


Objectives = dict[str, list[LabelSource]]


def load_objectives(path: Path) -> Objectives:
    """Return an objectives file.

    Raises:
        DatasetRefused: If it does not follow the format.
    """
    try:
        return TypeAdapter(Objectives).validate_python(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise DatasetRefused(f"{path}: {invalid_request(error.errors()).message}") from error
    except (OSError, ValueError) as error:
        raise DatasetRefused(f"{path} cannot be read as JSON: {error}") from error


def describe(sources: Sequence[LabelSource], *, with_pairs: bool) -> str:
    """Return in words what an objective's labels were and how they map to 0..1.

    Args:
        sources: Of the objective.
        with_pairs: Whether pairs of a category took part.
    """
    parts: list[str] = []
    for source in sources:
        if source.category is not None:
            if with_pairs:
                parts.append(f"pairs of category {source.category}")
            continue
        origin = source.derived or f"{source.source}/{source.attribute}"
        parts.append(f"{origin} ({source.low:g}..{source.high:g})")
    return f"0..1, from {', '.join(parts)}"


def objectives_of_categories(objectives: Objectives) -> dict[str, list[int]]:
    """Return the indices of the objectives that each category of pairs is about."""
    found: dict[str, list[int]] = {}
    for k, sources in enumerate(objectives.values()):
        for source in sources:
            if source.category is not None:
                found.setdefault(source.category, []).append(k)
    return found


def label_matrix(rows: Sequence[RatedResponse], objectives: Objectives) -> Tensor:
    """Return labels_NK on 0..1, NaN where a row says nothing of an objective.

    Where several attributes of a row speak of one objective, their mean counts.
    """
    labels_NK = torch.full((len(rows), len(objectives)), float("nan"))
    for k, sources in enumerate(objectives.values()):
        for n, row in enumerate(rows):
            found = [label for source in sources if (label := source.label(row)) is not None]
            if found:
                labels_NK[n, k] = sum(found) / len(found)
    return labels_NK
