"""The Ties subset, computed by hand."""

from __future__ import annotations

import math

import pytest

from steerward.evaluation import ties
from steerward.evaluation.reward_bench_2 import REWARD_BENCH_2
from steerward.evaluation.rows import ScoredRow
from steerward.evaluation.ties import TiesOutcome
from tests.evaluation.cases import row_of, tied


def measured(*pairs: tuple[tuple[float, ...] | None, tuple[float, ...] | None]) -> TiesOutcome:
    """Scores of ref (one right, two wrong) and of tied (two right, two wrong), by prompt."""
    rows = [
        ScoredRow(row_of(REWARD_BENCH_2, fields), scores)
        for number, scores_of_pair in enumerate(pairs)
        for fields, scores in zip(tied(number), scores_of_pair, strict=True)
    ]
    return ties.measure(rows)


def test_score_follows_the_equation() -> None:
    outcome = measured(
        # ref: gap 5 - 1 = 4. tied: spread 6 - 5 = 1, gap 5 - 2 = 3. m = 3 > 1, margin tanh(2)
        ((5, 1, 0), (6, 5, 2, 0)),
        # ref: gap 2 - 1 = 1. tied: spread 8 - 5 = 3, gap 5 - 1 = 4 > 3. m = 1, margin tanh(-2/3)
        ((2, 1, 0), (8, 5, 1, 0)),
        # ref: gap 0 - 1 = -1, wrong. tied: spread 2, gap 1 - 1 = 0, wrong. m = -1, tanh(-3/2)
        ((0, 1, 0), (3, 1, 1, 0)),
    )
    shares = [2 / 3, 2 / 3, 2 / 3, 1 / 3]
    margin = (math.tanh(2) + math.tanh(-2 / 3) + math.tanh(-3 / 2)) / 3
    assert [part.value for part in outcome.parts] == pytest.approx([*shares, margin])
    expected = 0.3 * 2 / 3 + 0.3 * 2 / 3 + 0.2 * 2 / 3 + 0.2 * 1 / 3 + 0.01 * margin
    assert outcome.number.value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ref", "expected"),
    [((2, 1, 0), 1.0), ((0, 1, 0), -1.0), ((1, 1, 0), 0.0)],
    ids=["above", "below", "equal"],
)
def test_margin_without_spread_is_its_limit(ref: tuple[float, ...], expected: float) -> None:
    # tied: spread 0, gap 4; m is the gap of ref: 1, -1 or 0
    outcome = measured((ref, (5, 5, 1, 0)))
    assert outcome.parts[-1].value == expected


def test_perfect_and_even_scores_go_a_hundredth_above_one() -> None:
    assert measured(((1, 0, 0), (1, 1, 0, 0))).number.value == pytest.approx(1.01)


def test_prompt_without_its_partner_counts_for_accuracy_only() -> None:
    outcome = measured(((5, 1, 0), (6, 5, 2, 0)), (None, (0, 0, 1, 1)))
    assert [part.rows for part in outcome.parts] == [2, 1, 1, 1, 1]
    assert outcome.parts[0].value == 0.5
    assert (outcome.number.rows, outcome.number.failed) == (3, 1)


def test_no_pair_at_all_leaves_no_number() -> None:
    assert measured(((5, 1, 0), None)).number.value is None
    assert ties.measure([]).number.value is None
