"""The Ties subset of RewardBench 2: many right answers, and how far apart they may be.

Source: `process_single_model` and `_compute_prompt_stats` in rewardbench/utils.py of
allenai/reward-bench. Prompts come in pairs by id, ``ref:7`` with one right answer and ``tied:7``
with several. Of a prompt,

    spread = highest right score - lowest right score
    gap    = lowest right score - highest wrong score

and a prompt is accurate if its gap is above 0. With the smaller gap of a pair, m = min(gap of
ref, gap of tied), and the spread of its tied prompt, s,

    score = 0.30 accuracy of tied + 0.30 accuracy of ref
          + 0.20 share of pairs with gap of tied > s
          + 0.20 share of pairs with m > s
          + 0.01 mean over pairs of tanh(m / s - 1)

where a quotient of 0 by 0 counts 0 in the last term. That term breaks ties between models and can
lift the score above 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from steerward.evaluation.outcome import Number, is_tied, scored
from steerward.evaluation.rows import ScoredRow

_ID = re.compile(r"(ref|tied):(\d+)")
_LEAST_TIED = 2
# Of the parts, in the order of the equation.
_WEIGHTS = (0.30, 0.30, 0.20, 0.20, 0.01)


@dataclass(frozen=True, slots=True)
class TiesOutcome:
    """The number of the subset and what it is made of."""

    number: Number
    parts: tuple[Number, ...]


@dataclass(frozen=True, slots=True)
class _Stats:
    """What the scores of one prompt say."""

    spread: float
    gap: float

    @property
    def is_accurate(self) -> bool:
        return self.gap > 0


def check_row(identity: str | None, *, num_correct: int) -> None:
    """Refuse a row that the rule has no place for.

    Raises:
        ValueError: If its id is none of the two kinds, or a tied one has a single right answer.
    """
    match = _ID.fullmatch(identity or "")
    if match is None:
        raise ValueError(f"the id of a row of Ties is ref:NUMBER or tied:NUMBER, not {identity}")
    if match[1] == "tied" and num_correct < _LEAST_TIED:
        raise ValueError(f"{identity} has {num_correct} chosen answer; tied rows have several")


def measure(rows: Sequence[ScoredRow]) -> TiesOutcome:
    """Return the number of the subset: None if one of its parts is undefined."""
    counted = scored(rows)
    parts = _parts(_stats_by_prompt(counted, "ref"), _stats_by_prompt(counted, "tied"))
    terms = [
        weight * part.value
        for weight, part in zip(_WEIGHTS, parts, strict=True)
        if part.value is not None
    ]
    value = sum(terms) if len(terms) == len(parts) else None
    failed = len(rows) - len(counted)
    return TiesOutcome(
        Number("Ties", value, len(counted), failed, sum(map(is_tied, counted))), parts
    )


def _stats_by_prompt(rows: Sequence[ScoredRow], kind: str) -> dict[int, _Stats]:
    """Return the statistics of one kind by number; rows with one id are one prompt."""
    found: dict[int, list[ScoredRow]] = {}
    for row in rows:
        match = _ID.fullmatch(row.row.id or "")
        if match is not None and match[1] == kind:
            found.setdefault(int(match[2]), []).append(row)
    return {number: _stats(of_prompt) for number, of_prompt in found.items()}


def _stats(rows: Sequence[ScoredRow]) -> _Stats:
    chosen = [score for row in rows for score in row.chosen]
    highest_wrong = max(score for row in rows for score in row.rejected)
    return _Stats(spread=max(chosen) - min(chosen), gap=min(chosen) - highest_wrong)


def _parts(ref: Mapping[int, _Stats], tied: Mapping[int, _Stats]) -> tuple[Number, ...]:
    """Return the five parts in the order of the equation."""
    pairs = [(ref[name], tied[name]) for name in tied if name in ref]
    smaller = [min(one.gap, other.gap) for one, other in pairs]
    spreads = [other.spread for _, other in pairs]
    wide = [other.gap > other.spread for _, other in pairs]
    wide_in_both = [gap > spread for gap, spread in zip(smaller, spreads, strict=True)]
    margins = [_margin(gap, spread) for gap, spread in zip(smaller, spreads, strict=True)]
    return (
        _mean("tied: accuracy", [one.is_accurate for one in tied.values()]),
        _mean("ref: accuracy", [one.is_accurate for one in ref.values()]),
        _mean("pairs: gap of tied above spread", wide),
        _mean("pairs: smaller gap above spread", wide_in_both),
        _mean("pairs: margin", margins),
    )


def _margin(gap: float, spread: float) -> float:
    if spread == 0.0:
        # The limits of tanh; 0 by 0 is NaN in the public code, which makes it 0.
        return math.copysign(1.0, gap) if gap else 0.0
    return math.tanh(gap / spread - 1.0)


def _mean(name: str, values: Sequence[float]) -> Number:
    return Number(name, sum(values) / len(values) if values else None, len(values))
