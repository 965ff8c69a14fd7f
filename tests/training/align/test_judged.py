"""Judges as reward columns, and the models that they ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from steerward.protocol.errors import InvalidRequest, NotFound
from steerward.training.align.judged import judge_models, with_rules
from tests.policies import save_policy
from tests.training.align.test_online import of_text

TURNS: Any = [[{"role": "assistant", "content": text}] for text in ("four", "longer than that")]
PROMPTS: Any = [[{"role": "user", "content": "Say it."}]] * 2


def test_a_rule_is_a_column_beside_those_of_the_source() -> None:
    rules = {"short": {"type": "length", "unit": "characters", "maximum": 5}}
    names = ["length", "short"]
    length, short = with_rules(of_text, rules)(names)
    assert [length.__name__, short.__name__] == ["length", "short"]
    assert short(prompts=PROMPTS, completions=TURNS) == [1.0, 0.0]
    assert length(prompts=PROMPTS, completions=TURNS) == [4.0, 16.0]


def test_a_rule_reads_its_row_and_gives_nothing_where_it_does_not_apply() -> None:
    source = with_rules(of_text, {"right": {"type": "exact_answer"}})
    (right,) = source(["right"])
    found = right(prompts=PROMPTS, completions=TURNS, answer=["four", None], trainer_state=object())
    assert found == [1.0, None]


def test_a_rule_that_is_wrong_is_refused_at_once() -> None:
    with pytest.raises(InvalidRequest, match="lengthy"):
        with_rules(of_text, {"short": {"type": "lengthy"}})
    with pytest.raises(InvalidRequest, match="name it otherwise"):
        with_rules(of_text, {"score": {"type": "length", "maximum": 5}})


def test_a_model_that_judges_ask_is_loaded_once(tmp_path: Path) -> None:
    folder = str(save_policy(tmp_path / "judge", rule=None))
    judge = {"type": "language_model", "template": "safety", "model": folder}
    asked_elsewhere = {**judge, "model": "far", "url": "http://127.0.0.1:1"}
    models = judge_models([judge, {**judge, "template": "style"}, asked_elsewhere])
    assert list(models) == [folder]
    (found,) = models[folder]([[{"role": "user", "content": "Yes or no?"}]], ("yes", "no"))
    assert found is not None
    assert len(found) == 2


def test_a_model_that_is_not_there_is_told(tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    with pytest.raises(NotFound):
        judge_models([{"type": "language_model", "template": "safety", "model": missing}])
