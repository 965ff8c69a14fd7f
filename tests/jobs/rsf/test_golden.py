"""Who is selected under a direction, against numpy's, on each scale."""

from __future__ import annotations

from typing import Any

import pytest

from steerward.jobs.rsf.selection import Candidate, select
from steerward.protocol.rsf import RsfSettings
from tests.golden_optimizers import EXACT, optimizer_cases

NAMES = ("helpfulness", "verbosity", "safety")


@pytest.mark.parametrize("scale", ["raw", "reference", "prompt"])
@pytest.mark.parametrize(
    "case", [case["selection"] for case in optimizer_cases("rsf")], ids=range(10)
)
def test_best_response_is_the_one_with_the_highest_product(
    case: dict[str, Any], scale: str
) -> None:
    inputs, expected = case["inputs"], case["selected"][scale]
    candidates = [
        Candidate(0, f"response {place}", dict(zip(NAMES, rewards, strict=True)), None)
        for place, rewards in enumerate(inputs["rewards"])
    ]
    moments = zip(inputs["reference_mean"], inputs["reference_std"], strict=True)
    found = select(
        candidates,
        {0: dict(zip(NAMES, inputs["direction"], strict=True))},
        reference=dict(zip(NAMES, moments, strict=True)),
        settings=RsfSettings.model_validate({"reward_scale": scale}),
    )
    (winner,) = found.winners
    assert winner.candidate == expected["best"]
    assert winner.score == pytest.approx(expected["score"], rel=EXACT)
    assert winner.advantage == pytest.approx(expected["advantage"], rel=EXACT)
