"""What samples of NeMo Gym are worth, in numbers that NeMo-RL can check."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerward.protocol.verification import summable, worth


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=23))
def test_rounded_numbers_have_exact_sums(values: list[float]) -> None:
    rounded = list(summable({str(i): value for i, value in enumerate(values)}).values())
    size = sum(abs(value) for value in values)
    assert rounded == pytest.approx(values, abs=size * 2**-50)
    exact = math.fsum(rounded)
    for ordered in (rounded, rounded[::-1], sorted(rounded, key=abs)):
        assert list(itertools.accumulate(ordered))[-1] == exact


@pytest.mark.parametrize("contributions", [None, {}])
def test_score_without_contributions_is_its_one_objective(
    contributions: dict[str, float] | None,
) -> None:
    found = worth(0.5, kind="score", rewards={"reward": 0.5}, contributions=contributions)
    assert found == {
        "objective/reward": 0.5, "reward": 0.5, "reward_components": {"reward": 0.5},
    }  # fmt: skip
