"""What holds for every benchmark."""

from __future__ import annotations

from typing import get_args

import pytest

from steerward.cli.evaluation_settings import BenchmarkName
from steerward.evaluation.benchmarks import BENCHMARKS
from steerward.evaluation.rows import ScoredRow
from tests.evaluation.cases import WHOLE, row_of


def scored(name: str, *, chosen: float, rejected: float) -> list[ScoredRow]:
    rows = [row_of(BENCHMARKS[name], fields) for fields in WHOLE[name]]
    return [
        ScoredRow(row, (chosen,) * len(row.chosen) + (rejected,) * len(row.rejected))
        for row in rows
    ]


def test_command_line_knows_every_benchmark() -> None:
    assert set(get_args(BenchmarkName)) - {"ifeval"} == set(BENCHMARKS) == set(WHOLE)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_perfect_scorer_has_everything_right(name: str) -> None:
    outcome = BENCHMARKS[name].measure(scored(name, chosen=1.0, rejected=0.0))
    # Ties has a term of a hundredth on top, and is one of six.
    best = 1 + 0.01 / 6 if name == "reward-bench-2" else 1.0
    assert outcome.headlines[0].value == pytest.approx(best)
    assert outcome.missing == ()
    assert outcome.headlines[0].ties == 0


@pytest.mark.parametrize("name", BENCHMARKS)
def test_worst_scorer_has_nothing_right(name: str) -> None:
    outcome = BENCHMARKS[name].measure(scored(name, chosen=0.0, rejected=1.0))
    worst = -0.01 / 6 if name == "reward-bench-2" else 0.0
    assert outcome.headlines[0].value == pytest.approx(worst)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_shift_and_scale_of_the_scores_change_nothing(name: str) -> None:
    one = BENCHMARKS[name].measure(scored(name, chosen=3.0, rejected=2.0))
    other = BENCHMARKS[name].measure(scored(name, chosen=-4.0, rejected=-8.0))
    assert one == other


@pytest.mark.parametrize("name", BENCHMARKS)
def test_rows_without_scores_leave_no_headline(name: str) -> None:
    rows = [ScoredRow(row_of(BENCHMARKS[name], fields), None) for fields in WHOLE[name]]
    outcome = BENCHMARKS[name].measure(rows)
    assert outcome.headlines[0].value is None
    assert outcome.headlines[0].failed == len(rows)
    assert outcome.missing
