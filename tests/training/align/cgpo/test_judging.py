"""Judges of a batch: each task's own, and rates over all processes."""

from __future__ import annotations

from collections import Counter

import pytest

from steerward.training.align.cgpo.judging import judge_batch, judge_metrics
from steerward.training.align.cgpo.tasks import Task
from tests.training.align.cgpo.runs import Rule


def test_each_task_is_judged_by_its_own_judges() -> None:
    tasks = [Task("free", "r"), Task("short", "r", Rule(lambda text: len(text) < 3))]
    found = judge_batch(
        tasks,
        [0, 1, 1, None],
        prompts=["p"] * 4,
        completions=["long text", "ab", "long text", "ab"],
        rows=[{}] * 4,
    )
    assert found.satisfied == [True, True, False, False]
    assert found.counts == {"short/rule/1": 1, "short/rule/0": 1}


def test_rates_are_of_what_a_judge_applies_to_in_all_processes() -> None:
    counts = [Counter({"a/rule/1": 2, "a/rule/0": 1}), Counter({"a/rule/-1": 1, "b/style/1": 5})]
    assert judge_metrics(counts) == {
        "cgpo/a/passed/rule": pytest.approx(0.5),
        "cgpo/a/judge_failed/rule": pytest.approx(0.25),
        "cgpo/b/passed/style": 1.0,
        "cgpo/b/judge_failed/style": 0.0,
    }
