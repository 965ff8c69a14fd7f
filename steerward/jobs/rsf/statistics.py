"""Numbers that tell whether an iteration steers better, and whether it cheats.

Intervals are percentile bootstraps that resample prompts: what was drawn for one prompt stays
together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_RESAMPLES = 2000
_MOST_INDICES = 1_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with what it may be."""

    mean: float
    low: float
    high: float


def mean_interval(
    values: ArrayLike, *, seed: int = 0, resamples: int = _RESAMPLES, level: float = 0.95
) -> Interval:
    """Return the mean over prompts with its interval.

    Args:
        values: The first axis is the prompts'; what each has along others is averaged first.
        seed: Of the resampling.
        resamples: How many.
        level: Share of the resampled means that the interval covers.

    Raises:
        ValueError: If there are no prompts, or not numbers.
    """
    by_prompt = _by_prompt(values)
    num = len(by_prompt)
    if not num or not np.isfinite(by_prompt).all():
        raise ValueError(f"an interval needs finite values of at least one prompt, not {num}")
    numbers = np.random.default_rng(seed)
    # Some at a time: all indices at once would take memory without bound.
    at_once = max(1, _MOST_INDICES // num)
    means = np.concatenate(
        [
            by_prompt[numbers.integers(0, num, (min(at_once, resamples - done), num))].mean(axis=1)
            for done in range(0, resamples, at_once)
        ]
    )
    low, high = np.quantile(means, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return Interval(float(by_prompt.mean()), float(low), float(high))


def difference_interval(
    after: ArrayLike,
    before: ArrayLike,
    *,
    seed: int = 0,
    resamples: int = _RESAMPLES,
    level: float = 0.95,
) -> Interval:
    """Return by how much a mean has risen, with its interval; values are paired by prompt.

    Raises:
        ValueError: If they cannot be paired.
    """
    later, earlier = _by_prompt(after), _by_prompt(before)
    if len(later) != len(earlier):
        raise ValueError(f"{len(later)} prompts cannot be paired with {len(earlier)}")
    return mean_interval(later - earlier, seed=seed, resamples=resamples, level=level)


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """Return the area that points dominate above a reference, of two objectives."""
    area, floor = 0.0, float(reference[1])
    for first, second in sorted(((float(a), float(b)) for a, b in points), reverse=True):
        if second > floor and first > reference[0]:
            area += (first - float(reference[0])) * (second - floor)
            floor = second
    return area


def repetition(text: str) -> float:
    """Return the share of three-word sequences that were there before; 0 without any."""
    counts = _sequences(text, 3)
    total = counts.total()
    return 1.0 - len(counts) / total if total else 0.0


def mean_repetition(texts: Sequence[str]) -> float:
    """Return the mean of `repetition`; 0 without texts."""
    return sum(repetition(text) for text in texts) / len(texts) if texts else 0.0


def distinct_share(texts: Sequence[str], num_words: int) -> float:
    """Return how many sequences of so many words differ, of all in all texts; 0 without any.

    Distinct-n of Li et al. (arXiv:1510.03055): it falls when a policy says the same to everything.
    """
    counts: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        counts.update(_sequences(text, num_words))
    return len(counts) / counts.total() if counts else 0.0


def mean_words(texts: Sequence[str]) -> float:
    """Return the mean number of words; 0 without texts."""
    return sum(len(text.split()) for text in texts) / len(texts) if texts else 0.0


def _by_prompt(values: ArrayLike) -> NDArray[np.float64]:
    found = np.asarray(values, dtype=np.float64)
    return found.reshape(len(found), -1).mean(axis=1) if found.size else np.zeros(0)


def _sequences(text: str, num_words: int) -> Counter[tuple[str, ...]]:
    words = text.split()
    return Counter(zip(*(words[begin:] for begin in range(num_words)), strict=False))
