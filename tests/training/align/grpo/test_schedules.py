"""Factors of weights by share of training."""

from __future__ import annotations

import pytest

from steerward.protocol.errors import InvalidRequest
from steerward.training.align.grpo.schedules import Constant, Cosine, Linear, Schedule


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Constant(0.3), [0.3] * 5),
        (Linear(1.0, 0.0), [1.0, 0.75, 0.5, 0.25, 0.0]),
        (Linear(0.0, 2.0, begin=0.25, finish=0.75), [0.0, 0.0, 1.0, 2.0, 2.0]),
        (Cosine(1.0, 0.0), [1.0, 0.853553, 0.5, 0.146447, 0.0]),
        (Cosine(0.0, 1.0, begin=0.5), [0.0, 0.0, 0.0, 0.5, 1.0]),
    ],
    ids=["constant", "linear", "part", "cosine", "late-cosine"],
)
def test_factor_goes_from_start_to_end(schedule: Schedule, expected: list[float]) -> None:
    found = [schedule(share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert found == pytest.approx(expected, abs=1e-6)


def test_spans_and_shares_outside_training_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="no length"):
        Linear(0.0, 1.0, begin=0.5, finish=0.5)
    with pytest.raises(InvalidRequest, match="no length"):
        Cosine(0.0, 1.0, finish=1.5)
    for schedule in (Constant(), Linear(0.0, 1.0), Cosine(0.0, 1.0)):
        with pytest.raises(InvalidRequest, match=r"share 1\.5"):
            schedule(1.5)
