from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from steerward.protocol.alignment import (
    CgpoSettings,
    GrpoSettings,
    ModpoSettings,
    PamaSettings,
)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"weights": {}}, "at least 1"),
        ({"weights": {"a": 0.0}}, "other than 0"),
        ({"weights": {"a": float("nan")}}, "finite number"),
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


@pytest.mark.parametrize("weight", [0.0, -0.5, 1.5, float("nan")])
def test_a_weight_that_cannot_be_swept_to_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="cannot be swept to"):
        ModpoSettings(margins={"a": 1.0}).swept(weight)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"margins": {"a": float("inf")}}, "finite|give a number"),
        ({"margins": {"a": 1.0}, "logged": ["a"]}, "twice"),
    ],
)
def test_margins_are_numbers_and_named_once(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        ModpoSettings.model_validate(given)


@pytest.mark.parametrize(
    ("tasks", "more", "told"),
    [
        ({"a": {"share": 0.5}, "b": {}}, {}, "some have none"),
        ({"a": {"num_samples": 9}}, {}, "group_size is 8"),
        ({"a": {"optimizer": "codpo"}}, {"updates_per_batch": 2}, "its own samples"),
    ],
)
def test_tasks_that_do_not_fit_are_refused(
    tasks: dict[str, Any], more: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValidationError, match=told):
        CgpoSettings.model_validate({"tasks": tasks, **more})
