"""Which samples are returned."""

from __future__ import annotations

import pytest

from steerward.policy.delivery import best
from steerward.policy.steering_types import Reward
from steerward.protocol.errors import EngineFailure, InvalidRequest


def rewards(*pairs: tuple[float | None, float | None]) -> list[Reward]:
    return [Reward(score, direction_score, {}) for score, direction_score in pairs]


def test_the_best_come_first_by_what_was_asked_for() -> None:
    given = rewards((3.0, 0.1), (1.0, 0.3), (2.0, 0.2))
    assert best(given, 2, by_direction=True) == [1, 2]
    assert best(given, 2, by_direction=False) == [0, 2]


def test_of_equals_the_earlier_sample_is_better() -> None:
    given = rewards((1.0, 0.5), (1.0, 0.7), (1.0, 0.7), (1.0, 0.5))
    assert best(given, 4, by_direction=True) == [1, 2, 0, 3]
    assert best(given, 3, by_direction=False) == [0, 1, 2]


def test_without_a_score_a_direction_is_asked_for() -> None:
    with pytest.raises(InvalidRequest, match="give a direction") as caught:
        best(rewards((None, 0.1)), 1, by_direction=False)
    assert caught.value.param == "direction"


def test_a_missing_direction_score_is_no_number() -> None:
    with pytest.raises(EngineFailure, match="no direction score"):
        best(rewards((1.0, 0.2), (1.0, None)), 1, by_direction=True)
