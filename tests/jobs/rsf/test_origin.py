"""A job goes on with the models that it began with, and with no others."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from steerward.jobs.rsf.origin import Origin, check_origin
from steerward.protocol.errors import InvalidRequest

ORIGIN = Origin("pocket-policy", "p1", "pocket", "r1")


def test_the_same_models_are_gone_on_with(tmp_path: Path) -> None:
    for _ in range(3):
        check_origin(tmp_path, ORIGIN)


@pytest.mark.parametrize("name", ["policy_weight_version", "reward_model", "reward_weight_version"])
def test_other_models_are_refused_with_both_names(tmp_path: Path, name: str) -> None:
    check_origin(tmp_path, ORIGIN)
    other = dataclasses.replace(ORIGIN, **{name: "other"})
    with pytest.raises(InvalidRequest, match=f"it is other, and was {getattr(ORIGIN, name)};"):
        check_origin(tmp_path, other)
