"""When a loop ends, and which iteration it keeps."""

from __future__ import annotations

from typing import Any

import pytest

from steerward.jobs.rsf.stopping import chosen_iteration, why_stop
from steerward.protocol.fine_tuning import IterationProgress
from tests.jobs.rsf.playing import settings


def history(*scores: float | None, **fields: Any) -> list[IterationProgress]:
    return [
        IterationProgress(iteration=number, direction_score=score, **fields)
        for number, score in enumerate(scores)
    ]


@pytest.mark.parametrize(
    ("limits", "known", "reason"),
    [
        ({"max_sampled_tokens": 100}, history(0.0, 0.1, sampled_tokens=49), None),
        ({"max_sampled_tokens": 100}, history(0.0, 0.1, sampled_tokens=50), "100 tokens"),
        ({"max_seconds": 10}, history(0.0, 0.1, seconds={"sampling": 4.0}), None),
        ({"max_seconds": 10}, history(0.0, 0.1, seconds={"sampling": 5.0}), "ran for 10 s"),
        ({"max_seconds": 1.5}, history(0.0, 0.1), "ran for 2 s"),
        ({"early_stopping_patience": 1}, history(0.0, 0.1), None),
        ({"early_stopping_patience": 1}, history(0.0, 0.1, 0.1), "has not risen for 1"),
        ({"early_stopping_patience": 2}, history(0.2, 0.1, 0.3), None),
        ({"early_stopping_patience": 2}, history(0.2, None, 0.1, 0.2), "has not risen for 2"),
    ],
)
def test_limits_end_it(
    limits: dict[str, Any], known: list[IterationProgress], reason: str | None
) -> None:
    found = why_stop(len(known), settings(**limits), known, elapsed_s=2.0)
    assert (found is None) if reason is None else (reason in (found or ""))


def test_the_first_iteration_is_begun_whatever_the_limits() -> None:
    assert why_stop(1, settings(max_seconds=0.1), history(0.0), elapsed_s=99.0) is None


def test_the_best_is_kept_and_the_first_of_those_that_are_level() -> None:
    assert chosen_iteration(3, settings(), history(0.0, 0.1, 0.3, 0.3)) == (2, None)
    assert chosen_iteration(3, settings(keep="last"), history(0.0, 0.9, 0.3, 0.1)) == (3, None)
    assert chosen_iteration(2, settings(), history(None, None, None)) == (2, None)
    # What an earlier run of more iterations left is not in question.
    assert chosen_iteration(1, settings(), history(0.0, 0.1, 0.9)) == (1, None)


def test_a_best_that_is_no_better_than_the_start_is_told() -> None:
    chosen, warning = chosen_iteration(2, settings(), history(0.5, 0.1, 0.3))
    assert chosen == 2
    assert warning is not None
    assert "no iteration has a higher direction score than the start (0.500)" in warning
