from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from steerward.judges import TEMPLATES, LanguageModelJudge, Template
from steerward.protocol.errors import InvalidRequest

GOOD = Template(text="{prompt}|{completion}", passing="good", failing="bad")


class Told:
    """Probabilities by what a question holds."""

    def __init__(self, **by_word: tuple[float, ...] | None) -> None:
        self.by_word = by_word
        self.asked: list[str] = []

    def __call__(
        self,
        conversations: Sequence[Any],
        labels: tuple[str, ...],  # noqa: ARG002
    ) -> list[tuple[float, ...] | None]:
        texts = [turns[-1]["content"] for turns in conversations]
        self.asked += texts
        return [next(p for word, p in self.by_word.items() if word in text) for text in texts]


def judge_of(told: Told, **settings: Any) -> LanguageModelJudge:
    return LanguageModelJudge(
        **{"name": "own", "template": GOOD, "label_probabilities": told, **settings}
    )


def test_the_likelier_label_decides() -> None:
    told = Told(aaa=(0.6, 0.4), bbb=(0.2, 0.3), ccc=(0.3, 0.3))
    found = judge_of(told).judge(["p"] * 3, ["aaa", "bbb", "ccc"])
    assert found == [1, 0, 1]
    assert told.asked == ["p|aaa", "p|bbb", "p|ccc"]


def test_a_threshold_asks_for_more_than_likelier() -> None:
    told = Told(aaa=(0.6, 0.4), bbb=(0.8, 0.1))
    assert judge_of(told, threshold=0.8).judge(["p"] * 2, ["aaa", "bbb"]) == [0, 1]


@pytest.mark.parametrize(
    "probabilities", [None, (0.0, 0.0), (math.nan, 0.5), (0.004, 0.004)], ids=str
)
def test_what_is_not_known_is_a_failure_and_no_guess(probabilities: Any) -> None:
    assert judge_of(Told(a=probabilities)).judge(["p"], ["a"]) == [-1]


def test_labels_of_little_mass_can_be_let_decide() -> None:
    assert judge_of(Told(a=(0.004, 0.003)), least_mass=0.0).judge(["p"], ["a"]) == [1]


def test_a_gold_answer_comes_from_the_row_or_the_gold_completions() -> None:
    told = Told(reference=(0.9, 0.1))
    judge = judge_of(told, template=TEMPLATES["factuality"])
    rows = [{"answer": "RRR"}, {"answer": None}, {"answer": ["R1", "R2"]}]
    found = judge.judge(["p"] * 3, ["c"] * 3, ["GGG", "HHH", "III"], rows=rows)
    assert found == [1, 1, 1]
    for text, gold in zip(told.asked, ["RRR", "HHH", "R1 / R2"], strict=True):
        assert f"<reference>\n{gold}\n" in text


def test_rows_to_which_it_does_not_apply_are_not_asked_about() -> None:
    told = Told(c=(0.9, 0.1))
    factual = judge_of(told, template=TEMPLATES["factuality"])
    assert factual.judge(["p"] * 2, ["c"] * 2, rows=[{}, {"answer": "x"}]) == [None, 1]
    chosen = judge_of(told, applies_column="is_chat")
    assert chosen.judge(["p"] * 2, ["c"] * 2, rows=[{"is_chat": True}, {}]) == [1, None]
    assert len(told.asked) == 2


def test_shares_out_of_range_are_refused() -> None:
    for settings in ({"threshold": 1.0}, {"threshold": 0.0}, {"least_mass": 1.0}):
        with pytest.raises(InvalidRequest, match="shares"):
            judge_of(Told(), **settings)
