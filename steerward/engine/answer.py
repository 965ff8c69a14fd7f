"""From outputs to the scores of a request: each number computed once, for all candidates.

Axis legend: N candidates of a request, G of an item, K objectives, V directions.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from steerward.engine.arrays import ScoredArrays
from steerward.engine.items import ItemOutput
from steerward.models.packing import Group
from steerward.models.reward_model import RewardModel
from steerward.protocol.errors import InvalidDirection
from steerward.protocol.scoring import ScoreRequest


class AnswerBuilder:
    """Builds the scores of one request.

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
    ) -> ScoredArrays:
        """Return the scores; `outputs` are in the order of the request's items.

        Raises:
            InvalidDirection: If weights or a direction lead to a number that is not finite.
        """
        explain = self._request.explain
        rewards_NK = torch.cat([output.rewards_GK for output in outputs])
        tokens = [len(suffix) for item in groups for group in item for suffix in group.suffixes]
        return ScoredArrays(
            summary=self._summary(groups, outputs),
            objectives=self._model.objectives,
            item_sizes=[len(output.rewards_GK) for output in outputs],
            tokens_N=torch.tensor(tokens),
            rewards_NK=rewards_NK,
            scores_N=_joined([output.scores_G for output in outputs]),
            weighted_scores_N=self._weighted_scores(rewards_NK),
            direction_scores_NV=self._direction_scores(rewards_NK),
            gates_NK=_joined([_rows(o.gates, o) for o in outputs]) if explain else None,
            coefficients_NK=(
                _joined([_rows(o.coefficients, o) for o in outputs]) if explain else None
            ),
            have_own_gates=[o.gates is not None and o.gates.dim() > 1 for o in outputs],
            has_one_direction=self._is_single,
            is_explained=explain,
        )

    def _summary(
        self, groups: Sequence[Sequence[Group]], outputs: Sequence[ItemOutput]
    ) -> dict[str, Any]:
        summary: dict[str, Any] = {
            "id": f"score-{uuid.uuid4().hex}",
            "object": "score",
            "model": self._name,
            "weight_version": self._model.weight_version,
            "usage": _usage(groups, outputs),
        }
        if self._weights is not None and self._weighted_K is not None:
            summary["weights"] = self._weights
            by_name = self._model.objectives.by_name(self._weighted_K.tolist())
            summary["weighted_coefficients"] = by_name
        if self._directions:
            used = [dict(direction.components) for direction in self._directions]
            summary |= {"direction": used[0]} if self._is_single else {"directions": used}
            has_reference = self._model.objectives.has_reference
            summary["direction_scale"] = "standardised" if has_reference else "raw"
        return summary

    def _weighted_scores(self, rewards_NK: Tensor) -> Tensor | None:
        if self._weighted_K is None:
            return None
        return _finite(rewards_NK.double() @ self._weighted_K, param="weights")

    def _direction_scores(self, rewards_NK: Tensor) -> Tensor | None:
        if not self._directions:
            return None
        place = "direction" if self._is_single else "directions"
        scores_NV = self._model.direction_scores(rewards_NK, self._directions_VK)
        return _finite(scores_NV, param=place)

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

    @property
    def _is_single(self) -> bool:
        return self._request.direction is not None


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


def _rows(values: Tensor | None, output: ItemOutput) -> Tensor | None:
    """Return gates or coefficients with one row a candidate."""
    return None if values is None else values.expand_as(output.rewards_GK)


def _joined(parts: Sequence[Tensor | None]) -> Tensor | None:
    """Return the tensors of all items as one; either each item has one, or none has."""
    there = [part for part in parts if part is not None]
    return torch.cat(there) if there else None


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
