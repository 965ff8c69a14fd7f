"""PAMA (arXiv:2508.07768): advantages that every objective agrees with, and the weights behind.

Noon clipping, ``A_i = max(A'_i, 0)``; then, of each sample, Theorem 1:

    s* = argmin |s| over { sum_i c_i A_i : c on the simplex }

The theorem names no weights. Those here are the most even that realise it,

    c = argmin |c|^2 over { c on the simplex, c.A = s* }

and those of a batch are ``c = argmin | sum_i c_i a_i |^2`` on the simplex, a_i the vector of an
objective's advantages over the samples: MGDA's problem (arXiv:1810.04650, equation 3) in the space
of advantages. Both are found by trying every support: on it, constraints are linear equations.

An objective that does not apply to a sample has no weight in it, and is 0 in the vectors.

Axis legend: N samples, K objectives, S objectives of a support.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from tests.golden.optimizers.document import Draws, Family, Floats, drawn

_FEASIBLE = 1e-10


@dataclass(frozen=True, slots=True)
class Combined:
    """Advantages of several objectives as one, and the weights that make it."""

    advantages: Floats
    weights: Floats


def combined(scores_NK: Floats) -> dict[str, Combined]:
    """Return PAMA by sample and by batch, with Noon clipping and without.

    Args:
        scores_NK: Standardised rewards; NaN where one does not apply, or does not count.
    """
    noon_NK = np.where(scores_NK < 0, 0.0, scores_NK)
    return {
        "min": by_sample(noon_NK),
        "min_signed": by_sample(scores_NK),
        "gram": by_batch(noon_NK),
        "gram_signed": by_batch(scores_NK),
    }


def by_sample(advantages_NK: Floats) -> Combined:
    """Return Theorem 1's value of each sample, and its most even weights."""
    values, weights_NK = [], np.zeros(advantages_NK.shape)
    for n, row in enumerate(advantages_NK):
        there = np.flatnonzero(~np.isnan(row))
        nearest = _nearest_to_zero(row[there]) if len(there) else 0.0
        values.append(nearest)
        if len(there):
            weights_NK[n, there] = _most_even(row[there], nearest)
    return Combined(np.array(values), weights_NK)


def _nearest_to_zero(values_K: Floats) -> float:
    if (values_K > 0).all():
        return float(values_K.min())
    if (values_K < 0).all():
        return float(values_K.max())
    return 0.0


def _most_even(values_K: Floats, nearest: float) -> Floats:
    candidates = []
    for support in _supports(len(values_K)):
        rows = np.stack([np.ones(len(support)), values_K[support]])
        wanted = np.array([1.0, nearest])
        # Of the weights that fulfil both equations the shortest.
        weights_S: Floats = np.linalg.lstsq(rows, wanted, rcond=None)[0].astype(float)
        if (weights_S >= -_FEASIBLE).all() and np.abs(rows @ weights_S - wanted).max() < _FEASIBLE:
            candidates.append(_spread(weights_S, support, len(values_K)))
    return min(candidates, key=lambda weights_K: float(weights_K @ weights_K))


def by_batch(advantages_NK: Floats) -> Combined:
    """Return the shortest convex combination of the objectives' vectors, and its weights."""
    filled_NK = np.nan_to_num(advantages_NK)
    there = np.flatnonzero(~np.isnan(advantages_NK).all(axis=0))
    weights_K = np.zeros(filled_NK.shape[1])
    if len(there):
        weights_K[there] = _shortest(filled_NK[:, there])
    return Combined(filled_NK @ weights_K, weights_K)


def _shortest(vectors_NK: Floats) -> Floats:
    candidates = []
    for support in _supports(vectors_NK.shape[1]):
        first, others = vectors_NK[:, support[0]], vectors_NK[:, support[1:]]
        # The point of the plane through the vectors that is nearest to 0, by least squares.
        away_S = np.linalg.lstsq(others - first[:, None], -first, rcond=None)[0]
        weights_S = np.concatenate([[1 - away_S.sum()], away_S])
        if (weights_S >= 0).all():
            candidates.append(_spread(weights_S, support, vectors_NK.shape[1]))
    return min(candidates, key=lambda weights_K: float(np.linalg.norm(vectors_NK @ weights_K)))


def _supports(size: int) -> Iterator[list[int]]:
    for count in range(1, size + 1):
        yield from (list(support) for support in combinations(range(size), count))


def _spread(weights_S: Floats, support: list[int], size: int) -> Floats:
    weights_K = np.zeros(size)
    weights_K[support] = weights_S
    return weights_K


def case(draws: Draws, place: int) -> dict[str, Any]:
    """Return advantages of two to five objectives, and what PAMA makes of them.

    Some samples have ties or zeros, which Noon clipping makes many of; the last cases have gaps.
    """
    advantages_NK = drawn(draws, 12, 2 + place % 4)
    advantages_NK[0] = 0.7
    advantages_NK[1] = np.abs(advantages_NK[1])
    advantages_NK[2] = -np.abs(advantages_NK[2])
    advantages_NK[3, 0] = 0.0
    advantages_NK[4, :2] = -0.4
    if place >= 7:
        advantages_NK[5, 1] = np.nan
        advantages_NK[6] = np.nan
    found = combined(advantages_NK)
    return {
        "inputs": {"advantages": advantages_NK},
        "noon": np.where(advantages_NK < 0, 0.0, advantages_NK),
        "advantages": {name: one.advantages for name, one in found.items()},
        "weights": {name: one.weights for name, one in found.items()},
    }


FAMILY = Family("pama", 2508, case)
