"""The methods of a job: which settings go with which, and what is used where none are given."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from steerward.protocol.alignment import GrpoSettings, PamaSettings
from steerward.protocol.fine_tuning import SETTINGS, JobRequest, Method
from steerward.protocol.rsf import RsfSettings


def request(method: dict[str, Any], **fields: Any) -> JobRequest:
    body = {"model": "m", "training_file": "f", "method": method}
    return JobRequest.model_validate({**body, **fields})


def test_settings_are_those_of_the_type_or_its_defaults() -> None:
    assert Method(type="rsf").settings == RsfSettings()
    assert Method(type="pama", pama=PamaSettings(steps=3)).settings == PamaSettings(steps=3)
    assert isinstance(Method(type="grpo").settings, GrpoSettings)
    for name in ("rsf", "pama", "grpo", "cgpo"):
        assert type(Method.model_validate({"type": name}).settings) is SETTINGS[name]


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ({"type": "pama", "rsf": {}}, "the type is 'pama', and settings are given of rsf"),
        ({"type": "rsf", "rsf": {}, "grpo": {}}, "settings are given of grpo; give rsf alone"),
        ({"type": "modpo"}, "modpo.margins is needed"),
    ],
)
def test_settings_of_another_type_are_refused(method: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError) as caught:
        request(method)
    (error,) = caught.value.errors()
    assert error["loc"] == ("method",)
    assert reason in error["msg"]


def test_settings_that_are_wrong_are_refused_with_their_place() -> None:
    with pytest.raises(ValidationError) as caught:
        request({"type": "pama", "pama": {"weights": {"a": 0.0}}})
    assert caught.value.errors()[0]["loc"] == ("method", "pama", "weights")


@pytest.mark.parametrize(
    ("settings", "fields", "seed"),
    [
        ({}, {}, 0),
        ({}, {"seed": 3}, 3),
        ({"seed": 5}, {"seed": 3}, 5),
        ({"seed": 0}, {"seed": 3}, 0),
    ],
)
def test_seed_is_that_of_the_settings_else_of_the_job(
    settings: dict[str, Any], fields: dict[str, Any], seed: int
) -> None:
    for method in ("pama", "rsf"):
        assert request({"type": method, method: settings}, **fields).used_seed == seed


def test_seed_that_no_trainer_takes_is_refused() -> None:
    assert request({"type": "rsf"}, seed=2**40).used_seed == 2**40
    with pytest.raises(ValidationError, match=f"seed is {2**31}, limit {2**31 - 1} for pama"):
        request({"type": "pama"}, seed=2**31)
