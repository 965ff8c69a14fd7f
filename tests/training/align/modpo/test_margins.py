"""Margins become columns, are computed once, and are never missing in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from steerward.protocol.errors import DatasetRefused, InvalidRequest, NonFiniteScore
from steerward.training.align.modpo.margin_sources import ColumnMargins, FunctionMargins
from steerward.training.align.modpo.margins import check_margins, margin_row, with_margins
from tests.training.align.modpo.cases import pairs

TEXTS = pairs(margins=0, conversational=False)


def counted(calls: list[str], *, version: str = "1", **values: Any) -> FunctionMargins:
    def shortness(prompt: str, response: str) -> float | None:
        calls.append(response)
        return values.get(response.split()[0].strip("."), -float(len(response)))

    return FunctionMargins({"brevity": shortness}, version=version)


def questions(prompt: str, response: str) -> float:
    return float(prompt.count("?"))


def zero(prompt: str, response: str) -> int:
    return 0


def test_margins_are_lists_in_the_order_of_the_sources() -> None:
    calls: list[str] = []
    other = FunctionMargins({"questions": questions, "zero": zero}, version="1")
    found = with_margins(TEXTS, [counted(calls), other], batch_size=4)
    assert found["margin_chosen"][0] == [-float(len("I am fine, and you?")), 1.0, 0.0]
    assert found["margin_rejected"][0] == [-2.0, 1.0, 0.0]
    assert found["chosen"] == TEXTS["chosen"]
    check_margins(found, names=["brevity", "questions", "zero"])


def test_second_run_computes_nothing(tmp_path: Path) -> None:
    cache = tmp_path / "margins.jsonl"
    first: list[str] = []
    second: list[str] = []
    one = with_margins(TEXTS, [counted(first)], cache=cache)
    two = with_margins(one, [counted(second)], cache=cache)
    assert one["margin_chosen"] == two["margin_chosen"]
    assert len(first) == 12
    assert not second


def test_another_source_or_version_computes_anew(tmp_path: Path) -> None:
    cache = tmp_path / "margins.jsonl"
    with_margins(TEXTS, [counted([])], cache=cache)
    calls: list[str] = []
    with_margins(TEXTS, [counted(calls, version="2")], cache=cache)
    assert len(calls) == 12


def test_equal_responses_are_asked_for_once() -> None:
    calls: list[str] = []
    with_margins(TEXTS.select([0, 0, 1]), [counted(calls)])
    assert len(calls) == 4


def test_what_was_computed_before_a_failure_is_kept(tmp_path: Path) -> None:
    cache = tmp_path / "margins.jsonl"
    with pytest.raises(DatasetRefused, match="row 1: the rejected response has no reward of"):
        with_margins(TEXTS, [counted([], Drops=None)], cache=cache, batch_size=3)
    calls: list[str] = []
    with_margins(TEXTS, [counted(calls)], cache=cache)
    assert 0 < len(calls) < 12


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_margin_that_is_no_number_is_told(value: float) -> None:
    with pytest.raises(NonFiniteScore, match="row 0: the rejected response has a reward of"):
        with_margins(TEXTS, [counted([], no=value)])


def test_sources_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="each once"):
        with_margins(TEXTS, [counted([]), counted([])])
    with pytest.raises(InvalidRequest, match="no objective"):
        with_margins(TEXTS, [])
    with pytest.raises(DatasetRefused, match="no column 'prompt'"):
        with_margins(TEXTS.remove_columns("prompt"), [counted([])])

    def few(prompts: Any, completions: Any, **_: Any) -> list[float]:
        return [0.0]

    with pytest.raises(DatasetRefused, match="gave 1 rewards for 12 responses"):
        with_margins(TEXTS, [ColumnMargins([few], version="1")])


@pytest.mark.parametrize("value", [None, True, "1", [], [1.0, 2.0], [None]])
def test_row_of_another_kind_is_refused(value: object) -> None:
    with pytest.raises(DatasetRefused, match="row 3"):
        margin_row(value, num=1, place="row 3")
    assert margin_row(2, num=1, place="row 3") == [2.0]
