"""RM-Bench: the matrix of styles, its three parts, and four domains."""

from __future__ import annotations

import pytest

from steerward.evaluation.rm_bench import RM_BENCH
from tests.evaluation.cases import WHOLE, measured, numbers, row_of, styled, values

OVERALL = "overall, four domains"


def test_matrix_falls_into_easy_normal_and_hard() -> None:
    # chosen 3, 1, 4 against rejected 2, 3, 0, chosen styles as rows:
    #   3: > 2, = 3 (wrong), > 0     1: < 2, < 3, > 0     4: > all
    # hard   (above the diagonal): 3 vs 3 wrong, 3 vs 0 right, 1 vs 0 right   2/3
    # normal (the diagonal):       3 vs 2 right, 1 vs 3 wrong, 4 vs 0 right   2/3
    # easy   (below):              1 vs 2 wrong, 4 vs 2 right, 4 vs 3 right   2/3
    one = (3, 1, 4, 2, 3, 0)
    # chosen 1, 2, 3 against rejected 2, 2, 2: hard 0, normal 1/3 (3 > 2), easy 2/3 (3 > 2 twice)
    other = (1, 2, 3, 2, 2, 2)
    outcome = measured(RM_BENCH, [(styled("chat"), one), (styled("chat", id="2"), other)])
    found = values(outcome, "domain and difficulty")
    assert found["chat, hard"] == pytest.approx((2 / 3 + 0) / 2)
    assert found["chat, normal"] == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert found["chat, easy"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert values(outcome, "domain")["chat"] == pytest.approx((1 / 3 + 1 / 2 + 2 / 3) / 3)
    # one ties above the diagonal; other at (2, 2) and, below it, chosen 2 against rejected 2
    tied = {name: number.ties for name, number in numbers(outcome, "domain and difficulty").items()}
    assert tied == {"chat, easy": 1, "chat, normal": 1, "chat, hard": 2}


def test_overall_is_the_mean_of_domains_and_safety_pools_its_rows() -> None:
    right, wrong = (1, 1, 1, 0, 0, 0), (0, 0, 0, 1, 1, 1)
    outcome = measured(
        RM_BENCH,
        [
            (styled("chat"), right),
            (styled("math"), wrong),
            (styled("code"), right),
            # Safety: 3 rows of 4 right, whichever half they belong to.
            *((styled("safety-refuse", id=str(i)), right) for i in range(3)),
            (styled("safety-response"), wrong),
        ],
    )
    assert values(outcome, "domain") == {"chat": 1, "math": 0, "code": 1, "safety": 0.75}
    assert values(outcome)[OVERALL] == pytest.approx((1 + 0 + 1 + 0.75) / 4)
    assert values(outcome, "difficulty") == {
        name: pytest.approx(2.75 / 4) for name in ("easy", "normal", "hard")
    }
    assert values(outcome, "domain and difficulty")["safety-response, easy"] == 0.0


def test_absent_domain_leaves_no_headline() -> None:
    outcome = measured(RM_BENCH, [(WHOLE["rm-bench"][0], (1, 1, 1, 0, 0, 0))])
    assert values(outcome)[OVERALL] is None
    assert outcome.missing == ("math", "code", "safety")


def test_domain_comes_from_the_row_or_the_name_of_the_file() -> None:
    without = {key: value for key, value in styled("chat").items() if key != "domain"}
    assert row_of(RM_BENCH, without, stem="safety-refuse_filtered").subset == "safety-refuse"
    with pytest.raises(ValueError, match="'total_dataset'"):
        row_of(RM_BENCH, without, stem="total_dataset")


def test_row_needs_three_styles_of_each() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        row_of(RM_BENCH, styled("chat", chosen=["4"]))
