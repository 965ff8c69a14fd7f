"""What a request would wait, and who would be late for it."""

from __future__ import annotations

import math

import pytest

from steerward.engine.admission import Forecast, forecast
from steerward.engine.queue import Backlog


def of(
    *due: tuple[float, int], running: int = 0, tokens: int = 100, deadline: float = 10.0
) -> Forecast:
    """A device of 100 tokens a second and passes of 50, at the time 0."""
    backlog = Backlog(running, list(due), 100.0)
    return forecast(backlog, tokens=tokens, deadline=deadline, now=0.0, pass_tokens=50)


def test_wait_is_what_is_ahead_and_a_third_more_and_a_pass() -> None:
    expected = of((4.0, 300), (9.0, 200), running=60)
    assert expected.wait_s == pytest.approx((4 / 3 * 660 + 50) / 100)
    assert expected.excess_s == pytest.approx(expected.wait_s - 10.0)


def test_what_is_due_later_is_not_waited_for() -> None:
    assert of((11.0, 100_000)).wait_s == of().wait_s


def test_request_that_would_make_an_admitted_one_late_is_refused() -> None:
    assert of((12.0, 700)).excess_s < 0
    assert of((12.0, 800)).excess_s == pytest.approx((4 / 3 * 900 + 50) / 100 - 12.0)


def test_request_that_is_just_in_time_is_protected_too() -> None:
    """Deadlines are rounded down and speeds change: at the edge it may look late already."""
    assert of((12.0, 1000)).excess_s > 0


def test_what_is_late_anyway_keeps_nobody_out() -> None:
    assert of((12.0, 100_000)).excess_s < 0


def test_request_without_a_deadline_is_never_late() -> None:
    assert of((math.inf, 10**9), tokens=10**9, deadline=math.inf).excess_s == -math.inf
