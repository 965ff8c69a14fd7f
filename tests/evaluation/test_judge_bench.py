"""JudgeBench: pair accuracy by category, and what equal scores decide."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerward.evaluation.judge_bench import JUDGE_BENCH
from steerward.evaluation.rows import BenchmarkRow, ScoredRow
from tests.evaluation.cases import judged, measured, numbers, row_of, values

ALL = "overall, all pairs"
BOTH = "overall, judged in both orders"
_OTHER = {"A>B": "B>A", "B>A": "A>B"}


def test_right_answer_is_the_one_the_label_names() -> None:
    assert row_of(JUDGE_BENCH, judged("mmlu-pro-law", "A>B")).candidates == ["4", "5"]
    assert row_of(JUDGE_BENCH, judged("mmlu-pro-law", "B>A")).candidates == ["5", "4"]


def test_equal_scores_are_decided_as_second_and_are_never_right_in_both_orders() -> None:
    outcome = measured(
        JUDGE_BENCH,
        [
            (judged("mmlu-pro-law", "A>B"), (2, 1)),  # right
            (judged("mmlu-pro-physics", "B>A"), (1, 1)),  # equal: B>A, the label
            (judged("livebench-math", "A>B"), (1, 1)),  # equal: B>A, not the label
            (judged("livecodebench", "B>A"), (0, 1)),  # wrong
        ],
    )
    assert values(outcome) == {ALL: 2 / 4, BOTH: 1 / 4}
    assert numbers(outcome)[ALL].ties == 2
    assert values(outcome, "category") == {
        "mmlu-pro": 1.0,
        "livebench-reasoning": None,
        "livebench-math": 0.0,
        "livecodebench": 0.0,
    }
    assert values(outcome, "source")["mmlu-pro-physics"] == 1.0
    assert outcome.missing == ("livebench-reasoning",)


def test_pooled_response_models_and_foreign_sources_are_told() -> None:
    outcome = measured(
        JUDGE_BENCH,
        [
            (judged("mmlu-pro-law", response_model="one"), (1, 0)),
            (judged("our-own", response_model="two"), (1, 0)),
        ],
    )
    assert values(outcome)[ALL] == 1.0
    assert any("one and two are pooled" in note for note in outcome.notes)
    assert any("our-own" in note for note in outcome.notes)


def test_other_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="label"):
        row_of(JUDGE_BENCH, judged("mmlu-pro-law", "A=B"))


_PAIRS = st.lists(
    st.tuples(st.sampled_from(["A>B", "B>A"]), st.integers(0, 2), st.integers(0, 2)),
    min_size=1,
    max_size=30,
)


@given(pairs=_PAIRS)
def test_turning_every_label_around_turns_right_into_wrong(
    pairs: list[tuple[str, int, int]],
) -> None:
    """Scores of A and B stay; also the ties add up, since one of the two labels names B."""

    def accuracy(turn: bool) -> float:
        rows: list[ScoredRow] = []
        for label, a, b in pairs:
            given_label = _OTHER[label] if turn else label
            row: BenchmarkRow = row_of(JUDGE_BENCH, judged("mmlu-pro-law", given_label))
            rows.append(ScoredRow(row, (a, b) if given_label == "A>B" else (b, a)))
        return values(JUDGE_BENCH.measure(rows))[ALL] or 0.0

    assert accuracy(False) + accuracy(True) == pytest.approx(1.0)
