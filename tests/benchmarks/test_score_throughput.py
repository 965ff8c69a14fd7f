"""The benchmark of scoring checks what it times, and measures each way by itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.score_throughput import Setting, check_equal, measure, memory_of
from benchmarks.subjects import ALONE, ENGINE, HTTP, PADDED, SUBJECTS, Subject
from benchmarks.workload import Item, write_checkpoint

SMALL = Setting(rounds=1, groups=2, singles=2, layers=1, width=64)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(folder, layers=SMALL.layers, width=SMALL.width)
    return folder


@pytest.mark.e2e
def test_every_way_gives_the_same_scores_and_is_timed(checkpoint: Path) -> None:
    subjects = {name: build(checkpoint) for name, build in SUBJECTS.items()}
    try:
        for items in SMALL.workloads().values():
            result = measure(subjects, items, rounds=SMALL.rounds)
            assert set(result["candidates_per_s"]) == {PADDED, ALONE, ENGINE, HTTP}
            assert result["candidates"] == sum(len(item.candidates) for item in items)
            assert set(result["max_abs_error"]) == {PADDED, ENGINE, HTTP}
            assert {len(seconds) for seconds in result["seconds"].values()} == {SMALL.rounds}
            for key in ("engine_over_padded", "engine_over_one_at_a_time"):
                assert 0 < result[key]["low"] <= result[key]["median"] <= result[key]["high"]
    finally:
        for subject in subjects.values():
            subject.close()


@pytest.mark.e2e
def test_memory_is_that_of_a_process_with_one_way_alone(checkpoint: Path) -> None:
    """All ways were resident in every figure, and the server's held its start-up."""
    place = {"workload": "groups of 8", "setting": SMALL, "folder": checkpoint}
    # Of the process that the HTTP figure is of, and of one that holds an engine alone.
    for method in (HTTP, ENGINE):
        assert 50 < memory_of(method, **place) < 4096


class Constant(Subject):
    """Scores everything alike."""

    def __init__(self, score: float) -> None:
        self._score = score

    def score(self, items: Sequence[Item]) -> list[float]:
        return [self._score] * len(items)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("score", [1.001, float("nan")])
def test_scores_that_differ_are_not_timed(score: float) -> None:
    subjects = {ALONE: Constant(1.0), ENGINE: Constant(score)}
    with pytest.raises(SystemExit, match="scores differ, so nothing is timed"):
        check_equal(subjects, [Item("a", ["b"])])
