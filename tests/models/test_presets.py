"""What is known of published checkpoints: names in head order, and documented scales only."""

from __future__ import annotations

import pytest

from steerward.models.presets import PRESETS


@pytest.mark.parametrize(
    ("hub_id", "count", "scaled"),
    [
        ("RLHFlow/ArmoRM-Llama3-8B-v0.1", 19, 7),
        ("nicolinho/QRM-Llama3.1-8B", 19, 0),
        ("nicolinho/QRM-Llama3.1-8B-v2", 19, 0),
        ("LxzGordon/URM-LLaMa-3.1-8B", 5, 0),
        ("RLHFlow/RewardModel-Mistral-7B-for-DPA-v1", 10, 5),
    ],
)
def test_objectives_have_names_of_their_own_and_documented_scales(
    hub_id: str, count: int, scaled: int
) -> None:
    objectives = PRESETS[hub_id].objectives
    assert len({objective.name for objective in objectives}) == len(objectives) == count
    assert sum(objective.rating is not None for objective in objectives) == scaled


@pytest.mark.parametrize(
    ("hub_id", "objective", "reward", "rating"),
    [
        # HelpSteer labels 0..4 are the centres of five bins of 0..1 ...
        ("RLHFlow/ArmoRM-Llama3-8B-v0.1", "helpsteer-helpfulness", 0.1, 0.0),
        ("RLHFlow/ArmoRM-Llama3-8B-v0.1", "helpsteer-verbosity", 0.9, 4.0),
        ("RLHFlow/ArmoRM-Llama3-8B-v0.1", "ultrafeedback-overall_score", 0.05, 1.0),
        # ... and of 0..100 in DPA's model, whose card has this answer's helpfulness.
        ("RLHFlow/RewardModel-Mistral-7B-for-DPA-v1", "helpsteer-helpfulness", 68.993, 2.94965),
    ],
)
def test_scale_reads_a_reward_as_the_rating_it_stands_for(
    hub_id: str, objective: str, reward: float, rating: float
) -> None:
    (found,) = [one for one in PRESETS[hub_id].objectives if one.name == objective]
    assert found.rating is not None
    assert found.rating.value(reward) == pytest.approx(rating)
