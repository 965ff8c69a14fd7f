"""The scores of a request as arrays, and the two encodings that are made of them.

By name, as mappings in the shape of `steerward.protocol.scoring.ScoreResponse` that go straight
to a fast JSON encoder; or as one safetensors file, without a mapping per candidate.

Axis legend: N candidates of a request, K objectives, R of them with ratings, V directions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from steerward.protocol.arrays import SUMMARY
from steerward.protocol.errors import NonFiniteScore
from steerward.protocol.objectives import ObjectiveSet


@dataclass(frozen=True, slots=True)
class ScoredArrays:
    """What a request was scored with, in host memory, candidates in request order."""

    summary: Mapping[str, Any]
    """What both encodings say of the request as a whole, ready for JSON."""
    objectives: ObjectiveSet
    item_sizes: Sequence[int]
    """Candidates of each item."""
    tokens_N: Tensor
    rewards_NK: Tensor
    scores_N: Tensor | None
    weighted_scores_N: Tensor | None
    direction_scores_NV: Tensor | None
    gates_NK: Tensor | None
    """One row each; None as well where no explanation was asked for, as for coefficients."""
    coefficients_NK: Tensor | None
    have_own_gates: Sequence[bool]
    """Of each item, whether the gates of its candidates are their own and not the prompt's."""
    has_one_direction: bool
    """Whether V is 1 because a single direction was asked for, and not a list of one."""
    is_explained: bool

    def by_name(self) -> dict[str, Any]:
        """Return the answer as mappings by name.

        Raises:
            NonFiniteScore: If a rating is not finite.
        """
        columns = self._columns()
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        bounds = pairwise(accumulate(self.item_sizes, initial=0))
        return {
            **self.summary,
            "items": [self._item(i, rows, slice(*bound)) for i, bound in enumerate(bounds)],
        }

    def to_safetensors(self) -> bytes:
        """Return the answer as one safetensors file, the summary in its metadata."""
        items = torch.arange(len(self.item_sizes))
        tensors = {
            "item": items.repeat_interleave(torch.tensor(self.item_sizes)),
            "tokens": self.tokens_N,
            "rewards": self.rewards_NK,
            "scores": self.scores_N,
            "weighted_scores": self.weighted_scores_N,
            "direction_scores": self.direction_scores_NV,
            "gates": self.gates_NK,
            "coefficients": self.coefficients_NK,
        }
        summary = {**self.summary, "objectives": self.objectives.names}
        return save(
            {name: tensor for name, tensor in tensors.items() if tensor is not None},
            metadata={SUMMARY: json.dumps(summary)},
        )

    def _item(self, index: int, rows: Sequence[dict[str, Any]], bound: slice) -> dict[str, Any]:
        item: dict[str, Any] = {"index": index}
        candidates = [{"index": i, **row} for i, row in enumerate(rows[bound])]
        if self.gates_NK is not None:
            gates = self._rows_by_name(self.gates_NK[bound])
            if self.have_own_gates[index]:
                for candidate, own in zip(candidates, gates, strict=True):
                    candidate["gates"] = own
            else:
                item["gates"] = gates[0]
        return item | {"candidates": candidates}

    def _columns(self) -> dict[str, Sequence[Any]]:
        """Return what each candidate gets, by key, as lists over the candidates."""
        columns: dict[str, Sequence[Any]] = {
            "score": [None] * len(self.rewards_NK)
            if self.scores_N is None
            else self.scores_N.tolist()
        }
        if self.direction_scores_NV is not None and self.has_one_direction:
            columns["direction_score"] = self.direction_scores_NV[:, 0].tolist()
        elif self.direction_scores_NV is not None:
            columns["direction_scores"] = self.direction_scores_NV.tolist()
        if self.weighted_scores_N is not None:
            columns["weighted_score"] = self.weighted_scores_N.tolist()
        columns["rewards"] = self._rows_by_name(self.rewards_NK)
        if self.is_explained:
            columns["ratings"] = self._ratings()
        if self.coefficients_NK is not None:
            columns["coefficients"] = self._rows_by_name(self.coefficients_NK)
            contributions_NK = self.coefficients_NK.double() * self.rewards_NK.double()
            columns["contributions"] = self._rows_by_name(contributions_NK)
        columns["tokens"] = self.tokens_N.tolist()
        return columns

    def _ratings(self) -> list[dict[str, dict[str, float | str]]]:
        rated = [(k, o.name, o.rating) for k, o in self.objectives.items() if o.rating is not None]
        if not rated:
            return [{} for _ in self.rewards_NK]
        scales = [(name, scale.label) for _, name, scale in rated]
        multiplier_R, offset_R = (
            torch.tensor([getattr(scale, key) for _, _, scale in rated], dtype=torch.float64)
            for key in ("multiplier", "offset")
        )
        rewards_NR = self.rewards_NK[:, [k for k, _, _ in rated]].double()
        ratings_NR = rewards_NR * multiplier_R + offset_R
        is_finite_R = torch.isfinite(ratings_NR).all(dim=0)
        if not is_finite_R.all():
            name, _ = scales[is_finite_R.tolist().index(False)]
            raise NonFiniteScore(f"the rating of {name!r} is not finite")
        return [
            {
                name: {"value": value, "scale": label}
                for (name, label), value in zip(scales, row, strict=True)
            }
            for row in ratings_NR.tolist()
        ]

    def _rows_by_name(self, values_NK: Tensor) -> list[dict[str, float]]:
        return [self.objectives.by_name(row) for row in values_NK.tolist()]
