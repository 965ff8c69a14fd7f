"""Wall time by activity."""

from __future__ import annotations

import time

import pytest

from steerward.jobs.rsf.clock import Clock


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test sets."""
    moment = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: moment[0])
    return moment


def test_a_moment_is_charged_once_and_to_the_first(now: list[float]) -> None:
    clock = Clock(["sampling", "scoring"])
    now[0] += 5
    with clock.on("scoring"):
        now[0] += 1
        with clock.on("sampling"):
            now[0] += 2
            with clock.on("sampling"):
                now[0] += 4
        now[0] += 8
    now[0] += 16
    assert clock.seconds == {"scoring": 9.0, "sampling": 6.0}


def test_laps_add_up_to_all(now: list[float]) -> None:
    clock = Clock(["sampling"])
    with clock.on("sampling"):
        now[0] += 1
        assert clock.lap() == {"sampling": 1.0}
        now[0] += 2
    now[0] += 4
    assert clock.lap() == {"sampling": 2.0}
    assert clock.lap() == {"sampling": 0.0}
    assert clock.seconds == {"sampling": 3.0}
