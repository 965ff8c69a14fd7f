"""Small rows of our own in the published formats, and scores put beside rows by hand."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from steerward.evaluation.outcome import Benchmark, Number, Outcome
from steerward.evaluation.reward_bench import SECTIONS
from steerward.evaluation.reward_bench_2 import SUBSETS
from steerward.evaluation.rows import BenchmarkRow, ScoredRow

Fields = dict[str, Any]


def pair(subset: str, **changes: Any) -> Fields:
    """A row of RewardBench."""
    row = {"prompt": "What is 2 + 2?", "chosen": "4", "rejected": "Five, I think.", "id": 1}
    return {**row, "subset": subset, **changes}


def choice(subset: str, **changes: Any) -> Fields:
    """A row of RewardBench 2."""
    row = {"prompt": "Name a prime.", "chosen": ["7"], "rejected": ["4", "6", "nine"], "id": "1"}
    return {**row, "subset": subset, **changes}


def tied(number: int) -> list[Fields]:
    """The two rows of a prompt of Ties."""
    return [
        choice("Ties", id=f"ref:{number}", chosen=["red"], rejected=["brown", "grey"]),
        choice("Ties", id=f"tied:{number}", chosen=["red", "blue"], rejected=["brown", "grey"]),
    ]


def styled(domain: str, **changes: Any) -> Fields:
    """A row of RM-Bench."""
    answers = ["4", "It is 4, since 2 and 2 are 4.", "**4**, since `2 + 2 = 4`."]
    wrong = [answer.replace("4", "5") for answer in answers]
    row = {"prompt": "What is 2 + 2?", "chosen": answers, "rejected": wrong, "id": "1"}
    return {**row, "domain": domain, **changes}


def judged(source: str, label: str = "A>B", **changes: Any) -> Fields:
    """A row of JudgeBench."""
    row = {"pair_id": "p1", "question": "What is 2 + 2?", "response_A": "4", "response_B": "5"}
    return {**row, "source": source, "label": label, "response_model": "ours", **changes}


WHOLE: Mapping[str, Sequence[Fields]] = {
    "reward-bench": [pair(name) for section in SECTIONS.values() for name in section],
    "reward-bench-2": [*(choice(name) for name in SUBSETS if name != "Ties"), *tied(1)],
    "rm-bench": [styled(d) for d in ("chat", "math", "code", "safety-refuse", "safety-response")],
    "judge-bench": [
        judged("mmlu-pro-law"),
        judged("livebench-reasoning", "B>A"),
        judged("livebench-math"),
        judged("livecodebench", "B>A"),
    ],
}
"""A few rows of every part that the headline of a benchmark needs, by its name."""


def row_of(benchmark: Benchmark, fields: Fields, *, stem: str = "rows") -> BenchmarkRow:
    return benchmark.read_row(fields, stem)


def measured(
    benchmark: Benchmark, given: Iterable[tuple[Fields, Sequence[float] | None]]
) -> Outcome:
    """What the rule makes of rows and their scores, the chosen answers' first."""
    return benchmark.measure(
        [
            ScoredRow(row_of(benchmark, fields), None if scores is None else tuple(scores))
            for fields, scores in given
        ]
    )


def numbers(outcome: Outcome, group: str | None = None) -> dict[str, Number]:
    """Numbers of a group by name; without one, the headlines."""
    if group is None:
        return {number.name: number for number in outcome.headlines}
    (found,) = [one for one in outcome.groups if one.name == group]
    return {number.name: number for number in found.numbers}


def values(outcome: Outcome, group: str | None = None) -> dict[str, float | None]:
    return {name: number.value for name, number in numbers(outcome, group).items()}


def write_lines(path: Path, rows: Iterable[Fields]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
