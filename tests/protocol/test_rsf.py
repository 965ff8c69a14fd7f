"""What the settings of a job refuse, and what they say then."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from steerward.protocol.fine_tuning import JobRequest
from steerward.protocol.rsf import MOST_COMPLETIONS, RsfSettings


def refused(**fields: object) -> str:
    with pytest.raises(ValidationError) as caught:
        RsfSettings.model_validate(fields)
    return caught.value.errors()[0]["msg"]


def test_completions_of_an_iteration_are_limited() -> None:
    most = {"prompts_per_iteration": MOST_COMPLETIONS // 128 // 5, "directions_per_prompt": 5}
    RsfSettings.model_validate({**most, "candidates_per_prompt": 128})
    told = refused(prompts_per_iteration=1_000_000, directions_per_prompt=2)
    assert (
        "prompts_per_iteration 1,000,000 x directions_per_prompt 2 x candidates_per_prompt 8 are "
        "16,000,000 completions in one iteration, limit 2,000,000" in told
    )


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seeds_fit_the_database(seed: int) -> None:
    assert refused(seed=seed)
    body = {"model": "m", "training_file": "f", "method": {"type": "rsf"}}
    with pytest.raises(ValidationError) as caught:
        JobRequest.model_validate({**body, "seed": seed})
    assert caught.value.errors()[0]["loc"] == ("seed",)
    JobRequest.model_validate({**body, "seed": 2**63 - 1})
