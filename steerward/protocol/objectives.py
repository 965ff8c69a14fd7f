"""Objectives: the named quantities that the heads of a reward model predict.

The order of an `ObjectiveSet` is the order of the heads and of every vector on the inside; on
the wire all of them are mappings by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

from pydantic import BaseModel, ConfigDict, Field, model_validator

from steerward.protocol.errors import UnknownObjective, brief


class RatingScale(BaseModel):
    """How a reward reads on the scale of the ratings it was trained on.

    ``value = multiplier * reward + offset``. Predictions are not clamped: a regressor may leave
    the range that the label names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    label: str
    """The rating scale in words, for example ``0..4``."""
    multiplier: float = 1.0
    """Rating units for one unit of reward."""
    offset: float = 0.0
    """Rating at reward zero."""

    def value(self, reward: float) -> float:
        """Return the rating that a reward stands for."""
        return self.multiplier * reward + self.offset


class Objective(BaseModel):
    """One named quantity a head predicts."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(min_length=1)
    """Name on the wire; unique within its set."""
    rating: RatingScale | None = None
    """Inverse of the label map of training, where it is documented."""
    reference_mean: float | None = None
    """Mean reward over the reference set of the checkpoint."""
    reference_std: float | None = Field(default=None, gt=0)
    """Standard deviation of the reward over the reference set."""
    description: str | None = None
    """What was rated, by whom, in which unit."""

    @model_validator(mode="after")
    def _reference_is_whole(self) -> Objective:
        if (self.reference_mean is None) != (self.reference_std is None):
            raise ValueError(
                f"objective {self.name!r}: reference_mean and reference_std go together"
            )
        return self


class ObjectiveSet(BaseModel):
    """The ordered objectives of a checkpoint."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    objectives: tuple[Objective, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_unique(self) -> ObjectiveSet:
        if len(self._index_by_name) < len(self):
            repeated = {name for name in self.names if self.names.count(name) > 1}
            raise ValueError(f"objective names repeat: {sorted(repeated)}")
        return self

    @classmethod
    def from_names(cls, names: Sequence[str]) -> ObjectiveSet:
        """Return a set of objectives of which only the names are known."""
        return cls(objectives=tuple(Objective(name=name) for name in names))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names in head order."""
        return tuple(objective.name for objective in self.objectives)

    @cached_property
    def _index_by_name(self) -> dict[str, int]:
        return {name: k for k, name in enumerate(self.names)}

    @cached_property
    def has_reference(self) -> bool:
        """Whether every objective knows its mean and spread over the reference set."""
        return all(objective.reference_std is not None for objective in self.objectives)

    def __len__(self) -> int:
        return len(self.objectives)

    def items(self) -> Iterator[tuple[int, Objective]]:
        """Yield each objective with its head index."""
        return enumerate(self.objectives)

    def index(self, name: str, *, param: str | None = None) -> int:
        """Return the head index of an objective.

        Raises:
            UnknownObjective: With the names that are known.
        """
        try:
            return self._index_by_name[name]
        except KeyError:
            raise UnknownObjective(
                f"unknown objective {brief(name)!r}; this reward model has: "
                f"{', '.join(self.names)}",
                param=param,
            ) from None

    def vector(self, values: Mapping[str, float], *, param: str | None = None) -> list[float]:
        """Return a mapping by name as a vector in head order, zero where a name is absent."""
        vector = [0.0] * len(self)
        for name, value in values.items():
            vector[self.index(name, param=f"{param}.{brief(name)}" if param else None)] = value
        return vector

    def by_name(self, values: Sequence[float]) -> dict[str, float]:
        """Return a vector in head order as a mapping by name."""
        return dict(zip(self.names, values, strict=True))
