from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerward.judges import JudgeFailed, Length, Mixture, Verdict
from steerward.protocol.errors import InvalidRequest


@dataclass(frozen=True)
class Said:
    """A user's own judge, which says what it is told."""

    name: str
    verdicts: Sequence[Any]

    def judge(self, *given: Any, **more: Any) -> list[Verdict | None]:  # noqa: ARG002
        return list(self.verdicts)


def judged(*columns: Sequence[Any], max_failure_rate: float = 1.0) -> Any:
    judges = [Said(f"judge_{i}", column) for i, column in enumerate(columns)]
    size = len(columns[0]) if columns else 2
    mixture = Mixture(judges, max_failure_rate=max_failure_rate)
    return mixture.judge(["p"] * size, ["c"] * size)


TABLES = st.integers(1, 6).flatmap(
    lambda size: st.lists(
        st.lists(st.sampled_from([1, 0, -1, None]), min_size=size, max_size=size),
        min_size=1,
        max_size=5,
    )
)


@given(TABLES)
def test_a_completion_is_satisfied_if_all_that_apply_pass(columns: list[list[Any]]) -> None:
    found = judged(*columns)
    for i, verdicts in enumerate(zip(*columns, strict=True)):
        applicable = [verdict for verdict in verdicts if verdict is not None]
        assert found.satisfied[i] is all(verdict == 1 for verdict in applicable)


@given(TABLES)
def test_any_fail_is_a_violation_whatever_the_others_say(columns: list[list[Any]]) -> None:
    size = len(columns[0])
    assert judged(*columns, [0] * size).satisfied == [False] * size


@given(TABLES)
def test_judges_that_do_not_apply_change_nothing(columns: list[list[Any]]) -> None:
    assert judged(*columns, [None] * len(columns[0])).satisfied == judged(*columns).satisfied


@given(TABLES, st.randoms())
def test_the_order_of_judges_changes_nothing(columns: list[list[Any]], order: Any) -> None:
    shuffled = order.sample(columns, k=len(columns))
    assert judged(*shuffled).satisfied == judged(*columns).satisfied


@given(TABLES)
def test_failure_rates_count_what_applies(columns: list[list[Any]]) -> None:
    found = judged(*columns)
    for i, column in enumerate(columns):
        applicable = [verdict for verdict in column if verdict is not None]
        expected = applicable.count(-1) / len(applicable) if applicable else 0.0
        assert found.failure_rates[f"judge_{i}"] == expected
        assert found.num_applicable[f"judge_{i}"] == len(applicable)
        assert found.verdicts[f"judge_{i}"] == column


def test_a_judge_that_failed_is_a_violation_and_is_counted_apart() -> None:
    found = judged([1, -1, 1, 1], [1, 1, 0, None])
    assert found.satisfied == [True, False, False, True]
    assert found.failure_rates == {"judge_0": 0.25, "judge_1": 0.0}
    assert found.violation_rate == 0.5


def test_more_failures_than_the_limit_raise_with_both_rates() -> None:
    columns = ([1, 1], [-1, None])
    with pytest.raises(JudgeFailed, match="'judge_1' could not judge 1 of the 1 .* 100%.* 10%"):
        judged(*columns, max_failure_rate=0.1)


def test_as_many_failures_as_the_limit_are_allowed() -> None:
    found = judged([1] * 9 + [-1], max_failure_rate=0.1)
    assert found.satisfied == [True] * 9 + [False]


def test_no_judge_that_applies_satisfies_and_all_violated_is_told() -> None:
    assert judged([None, None]).satisfied == [True, True]
    assert judged().satisfied == [True, True]
    found = judged([0, 0])
    assert found.satisfied == [False, False]
    assert found.violation_rate == 1.0


def test_of_no_completions_nothing_is_said() -> None:
    found = Mixture([Length(maximum=1)]).judge([], [])
    assert (found.satisfied, found.violation_rate) == ([], 0.0)


def test_what_is_no_verdict_is_refused() -> None:
    with pytest.raises(JudgeFailed, match="0.5"):
        judged([1, 0.5])
    with pytest.raises(JudgeFailed, match="1 verdicts for 2 completions"):
        Mixture([Said("short", [1])]).judge(["p", "p"], ["c", "c"])


def test_two_judges_of_one_name_and_other_rates_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="2 judges are called 'length'"):
        Mixture([Length(maximum=1), Length(minimum=1)])
    with pytest.raises(InvalidRequest, match="1.5"):
        Mixture([], max_failure_rate=1.5)


@pytest.mark.parametrize("name", ["a/b", "a b", "", "line\u2028end", "é"], ids=ascii)
def test_a_name_that_would_break_metrics_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="letters from a to z"):
        Mixture([Said(name, [])])
