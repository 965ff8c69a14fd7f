"""RewardBench 2: best of four, shared points, and the mean of six subsets."""

from __future__ import annotations

import pytest

from steerward.evaluation.reward_bench_2 import REWARD_BENCH_2
from tests.evaluation.cases import WHOLE, Fields, choice, measured, numbers, row_of, tied, values

OVERALL = "overall, six subsets"


def test_point_is_shared_among_the_answers_with_the_highest_score() -> None:
    # right alone 1; right with one other 1/2; right with all 1/4; another is higher 0
    scores = [(3, 2, 1, 0), (3, 3, 1, 0), (2, 2, 2, 2), (1, 2, 2, 0)]
    outcome = measured(
        REWARD_BENCH_2, [(choice("Math", id=str(i)), s) for i, s in enumerate(scores)]
    )
    number = numbers(outcome, "subset")["Math"]
    assert number.value == pytest.approx((1 + 1 / 2 + 1 / 4 + 0) / 4)
    assert number.ties == 2  # the last row is lost without one


def test_overall_is_the_plain_mean_of_six_subsets() -> None:
    rows: list[tuple[Fields, tuple[float, ...]]] = [
        (choice("Factuality"), (1, 0, 0, 0)),
        (choice("Precise IF"), (0, 1, 0, 0)),
        (choice("Math"), (1, 1, 0, 0)),
        (choice("Safety"), (1, 0, 0, 0)),
        (choice("Focus"), (1, 0, 0, 0)),
        (choice("Focus", id="2"), (0, 1, 0, 0)),
    ]
    ref, several = tied(1)
    # Both accurate, gap of ref 4, gap of tied 3, spread 1: all four shares 1, margin tanh(3/1 - 1)
    rows += [(ref, (5, 1, 0)), (several, (5, 4, 1, 0))]
    margin = 0.9640275800758169  # tanh(2)
    expected = (1 + 0 + 1 / 2 + 1 + 1 / 2 + (1 + 0.01 * margin)) / 6
    outcome = measured(REWARD_BENCH_2, rows)
    assert values(outcome)[OVERALL] == pytest.approx(expected, abs=1e-12)
    assert numbers(outcome)[OVERALL].rows == 8
    assert outcome.missing == ()


def test_absent_subset_leaves_no_headline() -> None:
    rows = [(fields, (1, 0, 0, 0)) for fields in WHOLE["reward-bench-2"][:4]]
    outcome = measured(REWARD_BENCH_2, rows)
    assert values(outcome)[OVERALL] is None
    assert outcome.missing == ("Focus", "Ties")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"subset": "Math", "chosen": ["7", "5"]}, "2 chosen answers; outside Ties"),
        ({"subset": "Math", "num_correct": 2}, "num_correct is 2 and the row has 1"),
        ({"subset": "Math", "num_incorrect": 1}, "num_incorrect is 1 and the row has 3"),
        ({"subset": "Ties", "id": "7"}, "ref:NUMBER or tied:NUMBER, not 7"),
        ({"subset": "ties", "id": "tied:7"}, "tied:7 has 1 chosen answer"),
    ],
    ids=["several", "correct", "incorrect", "id", "tied"],
)
def test_row_without_a_place_in_the_rule_is_refused(changes: Fields, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        row_of(REWARD_BENCH_2, choice(**changes))
