"""However many evaluations a run makes, people are told of a few hundred."""

from __future__ import annotations

from itertools import pairwise

from steerward.jobs.align.history import History
from steerward.protocol.fine_tuning import IterationProgress


def test_few_are_all_kept() -> None:
    history = History(5)
    for step in (0, 5, 10, 12):
        history.add(IterationProgress(iteration=step))
    assert [one.iteration for one in history.rows] == [0, 5, 10, 12]


def test_many_are_thinned_evenly_and_the_ends_stay() -> None:
    history = History(5)
    for step in [*range(0, 50_001, 5), 50_003]:
        history.add(IterationProgress(iteration=step))
    steps = [one.iteration for one in history.rows]
    assert (steps[0], steps[-1]) == (0, 50_003)
    assert 128 <= len(steps) <= 258
    assert len({after - before for before, after in pairwise(steps[:-1])}) == 1


def test_the_last_of_a_step_counts() -> None:
    history = History(5)
    for value in (0.1, 0.2):
        history.add(IterationProgress(iteration=7, rewards={"help": value}))
    assert [one.rewards for one in history.rows] == [{"help": 0.2}]
