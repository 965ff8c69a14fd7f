"""Explicit rewards as margins: functions of a response, reward columns, a reward model here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from steerward.models.packing import group_conversations
from steerward.models.reward_model import RewardModel
from steerward.protocol.errors import InputTooLong, UnknownObjective, brief
from steerward.training.align.measuring import called
from steerward.training.align.modpo.margins import Response
from steerward.training.align.turns import answer_text, prompt_turns


class FunctionMargins:
    """Rewards by functions of prompt and response.

    Args:
        functions: By objective; each is given prompt and response as the row has them, text or
            messages, and returns a number, or None where it does not apply.
        version: Of the functions; a cache gives the old numbers until it changes.
    """

    columns: tuple[str, ...] = ()

    def __init__(
        self, functions: Mapping[str, Callable[[Any, Any], float | None]], *, version: str
    ) -> None:
        self._functions = dict(functions)
        self._version = version

    @property
    def names(self) -> tuple[str, ...]:
        """Objectives, in order."""
        return tuple(self._functions)

    def identity(self, name: str) -> str:
        """Return the version."""
        return f"function {name}, {self._version}"

    def rewards(self, responses: Sequence[Response]) -> Mapping[str, Sequence[float | None]]:
        """Return rewards by objective."""
        return {
            name: [function(one.prompt, one.text) for one in responses]
            for name, function in self._functions.items()
        }


class ColumnMargins:
    """Rewards by reward columns: TRL's reward functions, called a batch at a time.

    Args:
        functions: Each gives the column of its `__name__`; may be `async def`.
        version: Of what they ask, such as a weight version; a cache gives the old numbers until
            it changes.
        columns: Columns of the rows that are passed on.
    """

    def __init__(
        self, functions: Sequence[Callable[..., Any]], *, version: str, columns: Sequence[str] = ()
    ) -> None:
        self._functions = {str(getattr(one, "__name__", one)): one for one in functions}
        self._version = version
        self.columns = tuple(columns)

    @property
    def names(self) -> tuple[str, ...]:
        """Objectives, in order."""
        return tuple(self._functions)

    def identity(self, name: str) -> str:
        """Return the version."""
        return f"column {name}, {self._version}"

    def rewards(self, responses: Sequence[Response]) -> Mapping[str, Sequence[float | None]]:
        """Return rewards by objective."""
        prompts, completions = [one.prompt for one in responses], [one.text for one in responses]
        more = {name: [one.columns[name] for one in responses] for name in self.columns}
        return {
            name: called(function, prompts=prompts, completions=completions, **more)
            for name, function in self._functions.items()
        }


class ModelMargins:
    """Rewards by objectives of a reward model in this process.

    Args:
        model: That scores.
        objectives: Names of its objectives, each with the factor that its raw reward is
            multiplied by: -1 where less is better.

    Raises:
        UnknownObjective: If the model does not have one.
    """

    columns: tuple[str, ...] = ()

    def __init__(self, model: RewardModel, objectives: Mapping[str, float]) -> None:
        self._model = model
        self._factors = dict(objectives)
        known = model.objectives.names
        for name in objectives:
            if name not in known:
                raise UnknownObjective(
                    f"the reward model has no objective {brief(name)!r}; it has "
                    f"{', '.join(map(brief, known))}",
                    param="objectives",
                )

    @property
    def names(self) -> tuple[str, ...]:
        """Objectives, in order."""
        return tuple(self._factors)

    def identity(self, name: str) -> str:
        """Return the weight version, and the factor."""
        return f"model {self._model.weight_version}, {name} times {self._factors[name]!r}"

    def rewards(self, responses: Sequence[Response]) -> Mapping[str, Sequence[float | None]]:
        """Return rewards by objective; None of responses that are too long for the model."""
        groups, places = [], []
        for place, one in enumerate(responses):
            try:
                conversations = self._model.encode(
                    prompt_turns(one.prompt), [answer_text(one.text)]
                )
            except InputTooLong:
                continue
            groups += group_conversations(conversations)
            places.append(place)
        rewards_NK = self._model.score(groups).rewards_NK.tolist() if groups else []
        rows = dict(zip(places, rewards_NK, strict=True))
        known = self._model.objectives.names
        return {
            name: [
                factor * rows[place][known.index(name)] if place in rows else None
                for place in range(len(responses))
            ]
            for name, factor in self._factors.items()
        }
