"""What answers to evaluation prompts show."""

from __future__ import annotations

import json
from typing import Any

import pytest

from steerward.jobs.rsf.evaluation import evaluate
from steerward.jobs.rsf.samples import SampleRow
from tests.jobs.rsf.test_samples import a_row


def answer(number: int, direction: int, by_direction: float, **fields: Any) -> SampleRow:
    row = {"number": number, "direction_index": direction, "direction_score": by_direction}
    return a_row(**{**row, **fields})


def test_points_are_by_direction_and_the_mean_is_over_them() -> None:
    rows = [answer(n, v, float(v) + 0.1 * n) for n in range(3) for v in range(2)]
    found = evaluate(rows, 2)
    assert found is not None
    assert found.prompts == 3
    assert [point.direction_score.mean for point in found.points] == pytest.approx([0.1, 1.1])
    assert found.direction_score.mean == pytest.approx(0.6)
    assert found.direction_score.low <= 0.6 <= found.direction_score.high
    assert found.score == pytest.approx(0.5)
    assert found.points[0].rewards["helpfulness"].mean == pytest.approx(0.7)
    json.dumps(found.data())


def test_prompts_without_all_directions_do_not_count() -> None:
    rows = [answer(0, 0, 0.0), answer(0, 1, 1.0), answer(1, 1, 100.0)]
    found = evaluate(rows, 2)
    assert found is not None
    assert (found.prompts, found.direction_score.mean) == (1, pytest.approx(0.5))


@pytest.mark.parametrize("rows", [[], [answer(0, 0, 1.0)]], ids=["none", "none whole"])
def test_no_whole_prompt_shows_nothing(rows: list[SampleRow]) -> None:
    """It was a crash on empty arrays."""
    assert evaluate(rows, 2) is None


def test_a_reward_model_without_a_score_of_its_own_has_none() -> None:
    found = evaluate([answer(0, 0, 1.0, score=None)], 1)
    assert found is not None
    assert found.score is None
    assert found.points[0].score is None
