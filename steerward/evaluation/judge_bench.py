"""JudgeBench (arXiv:2410.12784): which of two answers is right, for reward models.

The rule, as the public code has it:

- A reward model decides A>B if the score of A is above that of B, else B>A: equal scores count as
  B>A, right where that is the label (`GRMReward`, `SkyworkReward` and `InternLM2Reward` in
  utils/judges.py of ScalerLab/JudgeBench).
- With --single_game, as its README says for reward models, a pair is right if the decision is the
  label. Without it the pair is judged in both orders, and equal scores, which give B>A twice and
  so contradict themselves, are never right (`compute_final_metrics` in utils/metrics.py). The
  first is the headline here and the second is reported beside it; they differ by ties only.
- Pairs are grouped by how their source begins, in four categories; the overall number is over all
  pairs (run_judge.py).

Results are published for the pairs of one response model at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from steerward.evaluation.outcome import (
    Benchmark,
    Group,
    Outcome,
    Rule,
    by_subset,
    chosen_wins,
    mean_number,
)
from steerward.evaluation.rows import BenchmarkRow, PublishedRow, ScoredRow

CATEGORIES = ("mmlu-pro", "livebench-reasoning", "livebench-math", "livecodebench")
_SECOND_IS_RIGHT = "B>A"


class _Row(PublishedRow):
    question: str
    response_A: str
    response_B: str
    label: Literal["A>B", "B>A"]
    source: str
    pair_id: str | int | None = None
    response_model: str = ""


def read_row(fields: Mapping[str, Any], stem: str) -> BenchmarkRow:
    """Return a pair.

    Raises:
        ValueError: If it does not follow the format.
    """
    del stem
    row = _Row.model_validate(fields)
    first, second = (row.response_A,), (row.response_B,)
    second_is_right = row.label == _SECOND_IS_RIGHT
    return BenchmarkRow(
        subset=row.source,
        prompt=row.question,
        chosen=second if second_is_right else first,
        rejected=first if second_is_right else second,
        id=None if row.pair_id is None else str(row.pair_id),
        label=row.label,
        response_model=row.response_model,
    )


def measure(rows: Sequence[ScoredRow]) -> Outcome:
    """Return the numbers of the benchmark."""
    groups = {name: [row for row in rows if row.row.subset.startswith(name)] for name in CATEGORIES}
    categories = [mean_number(name, found, points=_is_right) for name, found in groups.items()]
    sources = by_subset(rows)
    others = [name for name in sources if not name.startswith(CATEGORIES)]
    return Outcome(
        (
            mean_number("overall, all pairs", rows, points=_is_right),
            mean_number("overall, judged in both orders", rows, points=chosen_wins),
        ),
        (
            Group("category", tuple(categories)),
            Group(
                "source",
                tuple(
                    mean_number(name, found, points=_is_right)
                    for name, found in sorted(sources.items())
                ),
            ),
        ),
        missing=tuple(number.name for number in categories if number.value is None),
        notes=tuple(_notes(rows, others)),
    )


def _is_right(row: ScoredRow) -> float:
    if row.chosen[0] == row.rejected[0]:
        return float(row.row.label == _SECOND_IS_RIGHT)
    return chosen_wins(row)


def _notes(rows: Sequence[ScoredRow], others: Sequence[str]) -> list[str]:
    notes: list[str] = []
    models = sorted({row.row.response_model for row in rows if row.row.response_model})
    if len(models) > 1:
        notes.append(
            f"answers of {' and '.join(models)} are pooled; published results are for one of them"
        )
    if others:
        notes.append(f"in the overall number but in no category: {', '.join(sorted(others))}")
    return notes


JUDGE_BENCH = Benchmark(
    name="judge-bench",
    title="JudgeBench",
    rule=Rule(
        version="1",
        sources=(
            "ScalerLab/JudgeBench utils/judges.py",
            "ScalerLab/JudgeBench utils/metrics.py",
            "ScalerLab/JudgeBench run_judge.py",
            "ScalerLab/JudgeBench README.md",
        ),
        ties="decided as B>A; beside it, as wrong",
    ),
    read_row=read_row,
    measure=measure,
)
