"""From outputs to the answer of a request: everything by name, nothing computed twice.

The answer is built as plain mappings in the shape of `steerward.protocol.scoring.ScoreResponse`:
they go straight to a fast JSON encoder.

Axis legend: G candidates of an item, K objectives, V directions.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from steerward.engine.items import ItemOutput
from steerward.models.packing import Group
from steerward.models.reward_model import RewardModel
from steerward.protocol.errors import InvalidDirection, NonFiniteScore
from steerward.protocol.objectives import Objective
from steerward.protocol.scoring import ScoreRequest


class AnswerBuilder:
    """Builds the answer of one request.

    Args:
        model: That scores it.
        name: Under which the model is served.
        request: To be answered.

    Raises:
        InvalidDirection: If weights or a direction are zero, not finite, too large or of the
            wrong sign.
        UnknownObjective: If they name an objective that the model does not have.
    """

    def __init__(self, model: RewardModel, *, name: str, request: ScoreRequest) -> None:
        self._model = model
        self._name = name
        self._request = request
        self._weights = request.checked_weights()
        self._directions = request.unit_directions()
        self._directions_VK = self._direction_matrix()
        self._weighted_K = None if self._weights is None else self._coefficients(self._weights)

    def build(
        self, groups: Sequence[Sequence[Group]], outputs: Sequence[ItemOutput]
    ) -> dict[str, Any]:
        """Return the answer; `outputs` are in the order of the request's items.

        Raises:
            InvalidDirection: If weights or a direction lead to a number that is not finite.
            NonFiniteScore: If a rating is not finite.
        """
        items = [
            self._item(index, item_groups, output)
            for index, (item_groups, output) in enumerate(zip(groups, outputs, strict=True))
        ]
        answer: dict[str, Any] = {
            "id": f"score-{uuid.uuid4().hex}",
            "object": "score",
            "model": self._name,
            "weight_version": self._model.weight_version,
            "items": items,
            "usage": _usage(groups, outputs),
        }
        self._add_steering(answer)
        return answer

    def _direction_matrix(self) -> Tensor:
        rows: list[list[float]] = []
        for i, direction in enumerate(self._directions):
            place = "direction" if self._is_single else f"directions[{i}]"
            rows.append(self._model.objectives.vector(direction.components, param=place))
        return torch.tensor(rows, dtype=torch.float64)

    def _coefficients(self, weights: Mapping[str, float]) -> Tensor:
        # The model multiplies in float32. Coefficients are linear in the weights, so the largest
        # of them is taken out before and put back in float64, which reaches as far as JSON.
        largest = max(weights.values())
        shares = {name: value / largest for name, value in weights.items()}
        coefficients_K = self._model.weighted_coefficients(shares).double() * largest
        return _finite(coefficients_K, param="weights")

    def _add_steering(self, answer: dict[str, Any]) -> None:
        if self._weights is not None and self._weighted_K is not None:
            answer["weights"] = self._weights
            answer["weighted_coefficients"] = self._by_name(self._weighted_K)
        if self._directions:
            used = [dict(direction.components) for direction in self._directions]
            answer |= {"direction": used[0]} if self._is_single else {"directions": used}
            has_reference = self._model.objectives.has_reference
            answer["direction_scale"] = "standardised" if has_reference else "raw"

    @property
    def _is_single(self) -> bool:
        return self._request.direction is not None

    def _item(self, index: int, groups: Sequence[Group], output: ItemOutput) -> dict[str, Any]:
        tokens = [len(suffix) for group in groups for suffix in group.suffixes]
        columns = self._columns(output)
        item: dict[str, Any] = {"index": index}
        if self._request.explain and output.gates is not None and output.gates.dim() == 1:
            item["gates"] = self._by_name(output.gates)
        item["candidates"] = [
            {
                "index": i,
                "score": None if output.scores_G is None else output.scores_G[i].item(),
                **{name: values[i] for name, values in columns.items()},
                "tokens": tokens[i],
            }
            for i in range(len(tokens))
        ]
        return item

    def _columns(self, output: ItemOutput) -> dict[str, list[Any]]:
        """Return what each candidate gets, by key, as lists over the candidates."""
        rewards_GK = output.rewards_GK
        columns: dict[str, list[Any]] = {}
        if self._directions:
            place = "direction" if self._is_single else "directions"
            scores_GV = _finite(
                self._model.direction_scores(rewards_GK, self._directions_VK), param=place
            ).tolist()
            if self._is_single:
                columns["direction_score"] = [row[0] for row in scores_GV]
            else:
                columns["direction_scores"] = scores_GV
        if self._weighted_K is not None:
            scores_G = _finite(rewards_GK.double() @ self._weighted_K, param="weights")
            columns["weighted_score"] = scores_G.tolist()
        columns["rewards"] = self._rows_by_name(rewards_GK)
        if self._request.explain:
            columns |= self._explanation(output)
        return columns

    def _explanation(self, output: ItemOutput) -> dict[str, list[Any]]:
        rewards_GK = output.rewards_GK
        columns: dict[str, list[Any]] = {"ratings": [self._ratings(row) for row in rewards_GK]}
        if output.gates is not None and output.gates.dim() > 1:
            columns["gates"] = self._rows_by_name(output.gates)
        if output.coefficients is not None:
            coefficients_GK = output.coefficients.expand_as(rewards_GK)
            columns["coefficients"] = self._rows_by_name(coefficients_GK)
            contributions_GK = coefficients_GK.double() * rewards_GK.double()
            columns["contributions"] = self._rows_by_name(contributions_GK)
        return columns

    def _ratings(self, rewards_K: Tensor) -> dict[str, dict[str, float | str]]:
        rewards = rewards_K.tolist()
        return {
            objective.name: {
                "value": _rating(objective, rewards[k]),
                "scale": objective.rating.label,
            }
            for k, objective in self._model.objectives.items()
            if objective.rating is not None
        }

    def _by_name(self, values_K: Tensor) -> dict[str, float]:
        return self._model.objectives.by_name(values_K.tolist())

    def _rows_by_name(self, values_GK: Tensor) -> list[dict[str, float]]:
        return [self._model.objectives.by_name(row) for row in values_GK.tolist()]


def _finite(values: Tensor, *, param: str) -> Tensor:
    """Return values if JSON can spell them all: it has no NaN and no infinity.

    Raises:
        InvalidDirection: If one is not finite.
    """
    if not torch.isfinite(values).all():
        raise InvalidDirection(
            f"{param} lead to a number beyond the largest, 1.8e308; scale them down, or leave out "
            "objectives of which the checkpoint's spread is next to zero",
            param=param,
        )
    return values


def _rating(objective: Objective, reward: float) -> float:
    assert objective.rating is not None
    value = objective.rating.value(reward)
    if not math.isfinite(value):
        raise NonFiniteScore(f"the rating of {objective.name!r} is not finite")
    return value


def _usage(groups: Sequence[Sequence[Group]], outputs: Sequence[ItemOutput]) -> Mapping[str, int]:
    flat = [group for item_groups in groups for group in item_groups]
    prompt_tokens = sum(len(group.prefix) for group in flat)
    candidate_tokens = sum(len(suffix) for group in flat for suffix in group.suffixes)
    return {
        "prompt_tokens": prompt_tokens,
        "candidate_tokens": candidate_tokens,
        "prefix_tokens_saved": sum(output.tokens_saved for output in outputs),
        "cached_tokens": sum(output.tokens_cached for output in outputs),
        "total_tokens": prompt_tokens + candidate_tokens,
    }
