"""The benchmark of scoring checks what it times, and measures each way by itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks import score_throughput
from benchmarks.memory import memory_of
from benchmarks.subjects import ALONE, ENGINE, HTTP, PADDED, Subject
from benchmarks.throughput import check_equal
from benchmarks.workload import Item, groups_of_8, write_checkpoint

SMALL = score_throughput.Setting(rounds=1, groups=1, singles=2, wide=1, layers=1, width=64)


@pytest.mark.e2e
def test_every_way_gives_the_same_scores_and_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A process for each figure; its own test has one.
    monkeypatch.setattr(score_throughput, "memory_of", lambda *_: 100.0)
    found = score_throughput.run(SMALL, tmp_path)
    assert len(found["tables"]) == len(SMALL.workloads())
    for name, workload in SMALL.workloads().items():
        result = found[name]
        assert set(result["candidates_per_s"]) == {PADDED, ALONE, ENGINE, HTTP}
        assert result["candidates"] == sum(len(item.candidates) for item in workload(0))
        assert set(result["max_abs_error"]) == {PADDED, ALONE, ENGINE, HTTP}
        assert {len(seconds) for seconds in result["seconds"].values()} == {SMALL.rounds}
        for key in ("engine_over_padded", "engine_over_one_at_a_time"):
            assert 0 < result[key]["low"] <= result[key]["median"] <= result[key]["high"]


@pytest.mark.e2e
def test_memory_is_that_of_a_process_with_one_way_alone(tmp_path: Path) -> None:
    """All ways were resident in every figure, and the server's held its start-up."""
    write_checkpoint(tmp_path, layers=SMALL.layers, width=SMALL.width)
    # Of the server, not of the process that speaks to it.
    assert 50 < memory_of(HTTP, tmp_path, groups_of_8(1)(0)) < 4096


class Constant(Subject):
    """Scores everything alike."""

    def __init__(self, score: float) -> None:
        self._score = score

    @property
    def computed_tokens(self) -> int:
        return 0

    def score(self, items: Sequence[Item]) -> list[float]:
        return [self._score] * len(items)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("score", [1.001, float("nan")])
def test_scores_that_differ_are_not_timed(score: float) -> None:
    with pytest.raises(SystemExit, match="scores differ, so nothing is timed"):
        check_equal({ENGINE: Constant(score)}, [Item("a", ["b"])], expected=[1.0])
