from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from steerward.protocol.alignment import CgpoSettings, GrpoSettings, ModpoSettings, PamaSettings


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"weights": {}}, "at least 1"),
        ({"weights": {"a": 0.0}}, "other than 0"),
        ({"weights": {"a": float("nan")}}, "other than 0"),
        ({"weights": {"a": 1.0}, "logged": ["a"]}, "twice"),
        ({"prompts_per_step": 1000, "group_size": 1000}, "limit 65,536"),
        ({"conditions": [{"objective": "a", "needs": "score", "at_least": 0.0}]}, "names 'a'"),
        ({"final_weights": {"a": 1.0}}, "other objectives"),
        ({"final_weights": {"score": -1.0}}, "same side of 0"),
        ({"stepz": 3}, "Extra inputs"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        GrpoSettings.model_validate(given)


def test_a_soft_minimum_over_the_batch_is_refused() -> None:
    with pytest.raises(ValidationError, match="granularity sample"):
        PamaSettings(softmin_k=1.0, granularity="batch")


def test_cgpo_needs_a_task() -> None:
    with pytest.raises(ValidationError, match="at least 1"):
        CgpoSettings(tasks={})


def test_a_sweep_shares_the_rest_of_one_among_the_margins() -> None:
    settings = ModpoSettings(margins={"a": -3.0, "b": 1.0}).swept(0.6)
    assert settings.weight == 0.6
    assert settings.margins == pytest.approx({"a": -0.3, "b": 0.1})
