"""Intervals and correlations of the reports.

Axis legend: N pairs or responses, B bootstrap resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from steerward.gating.transform import rank_correlation

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Share of pairs that are ordered rightly, with a 95 % interval."""

    value: float
    low: float
    high: float
    pairs: int
    prompts: int
    """Independent prompts among them; with a handful of these an interval means little."""


class ClusterBootstrap:
    """Resamples prompts, not pairs: pairs of one prompt are not independent.

    Args:
        clusters: Prompt of each pair.
        resamples: B.
        seed: Of the resampling.
    """

    def __init__(self, clusters: Sequence[str], *, resamples: int, seed: int) -> None:
        _, index_N = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
        self._index_N = index_N
        count = int(index_N.max()) + 1
        generator = np.random.default_rng(seed)
        draws = generator.integers(0, count, size=(resamples, count))
        self._weights_BC = np.stack([np.bincount(row, minlength=count) for row in draws])

    def accuracy(self, margins_N: Floats, mask_N: NDArray[np.bool_] | None = None) -> Accuracy:
        """Return the accuracy of margins between preferred and other; ties count as half."""
        if mask_N is None:
            mask_N = np.ones(len(margins_N), dtype=bool)
        hits_N = _hits(margins_N) * mask_N
        low, high = np.quantile(self._shares(hits_N, mask_N), [0.025, 0.975])
        return Accuracy(
            float(hits_N.sum() / mask_N.sum()),
            float(low),
            float(high),
            int(mask_N.sum()),
            len(np.unique(self._index_N[mask_N])),
        )

    def difference(self, a_N: Floats, b_N: Floats) -> tuple[float, float, float]:
        """Return the accuracy of margins a minus that of b, with a 95 % interval."""
        hits_N = _hits(a_N) - _hits(b_N)
        low, high = np.quantile(self._shares(hits_N, np.ones(len(a_N))), [0.025, 0.975])
        return float(hits_N.mean()), float(low), float(high)

    def _shares(self, hits_N: Floats, counted_N: NDArray[np.generic]) -> Floats:
        clusters = self._weights_BC.shape[-1]
        hits_C = np.bincount(self._index_N, weights=hits_N, minlength=clusters)
        counts_C = np.bincount(
            self._index_N, weights=counted_N.astype(np.float64), minlength=clusters
        )
        totals_B = self._weights_BC @ counts_C
        # A resample may hold no prompt of a small source; it says nothing of that source.
        drawn_B = totals_B > 0
        return (self._weights_BC @ hits_C)[drawn_B] / totals_B[drawn_B]


def _hits(margins_N: Floats) -> Floats:
    """Return 1 for pairs ordered rightly, 0 for wrongly, one half for ties."""
    return (np.sign(margins_N) + 1.0) / 2.0


def spearman(a_N: ArrayLike, b_N: ArrayLike) -> float:
    """Return Spearman's rank correlation; ties get their mean rank."""
    return rank_correlation(torch.as_tensor(np.asarray(a_N)), torch.as_tensor(np.asarray(b_N)))


def mean_within(groups: Mapping[str, tuple[int, float | None]]) -> float | None:
    """Return the mean of correlations within groups, weighted by their rows; None without any.

    Args:
        groups: Rows and correlation of each group; None where one is not defined.
    """
    defined = [(rows, value) for rows, value in groups.values() if value is not None]
    if not defined:
        return None
    return sum(rows * value for rows, value in defined) / sum(rows for rows, _ in defined)
