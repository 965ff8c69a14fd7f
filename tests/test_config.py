"""Settings know what exposes a server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from steerward.config import ServeConfig, load_settings


@pytest.mark.parametrize(
    ("host", "is_exposed"),
    [
        ("127.0.0.1", False),
        ("127.9.9.9", False),
        ("::1", False),
        ("localhost", False),
        ("0.0.0.0", True),
        ("::", True),
        ("10.1.2.3", True),
        ("example.org", True),
    ],
)
def test_addresses_other_machines_can_reach(host: str, is_exposed: bool) -> None:
    assert ServeConfig(host=host).is_exposed is is_exposed


def test_server_is_bound_to_loopback_by_default() -> None:
    assert not ServeConfig().is_exposed


@pytest.mark.parametrize("text", ["", " ", "a,", ",a", "a,,b"])
def test_blank_key_of_the_environment_is_refused_with_the_way_out(text: str) -> None:
    """It counted as a key: the warning of an open server fell silent, and `Bearer ` passed."""
    with pytest.raises(ValidationError, match="STEERWARD_API_KEY unset"):
        load_settings(ServeConfig, {}, environment={"STEERWARD_API_KEY": text})


def test_blank_key_of_a_flag_is_refused() -> None:
    with pytest.raises(ValidationError, match="blank"):
        ServeConfig.model_validate({"api_key": ["good", ""]})


def test_keys_of_the_environment_are_a_list() -> None:
    config = load_settings(ServeConfig, {}, environment={"STEERWARD_API_KEY": "a, b"})
    assert [key.get_secret_value() for key in config.api_key] == ["a", "b"]
    assert load_settings(ServeConfig, {}, environment={}).api_key == []


def test_devices_take_the_place_of_device() -> None:
    config = load_settings(ServeConfig, {}, environment={"STEERWARD_DEVICES": "cuda:0, cuda:1"})
    assert config.devices == ["cuda:0", "cuda:1"]
    with pytest.raises(ValidationError, match="leave one out"):
        ServeConfig(device="cpu", devices=["cpu", "cpu"])
    with pytest.raises(ValidationError, match="give all alone"):
        ServeConfig(devices=["all", "cuda:0"])


@pytest.mark.parametrize("given", [[], [""], ["none"]])
def test_policies_may_be_none(given: list[str]) -> None:
    assert ServeConfig(policy=given).policy == []


def test_policies_have_names_and_adapters_a_policy() -> None:
    for wrong, words in (
        ({"policy": ["none", "a"]}, "give none alone"),
        ({"policy": ["a", "b"], "policy_name": ["x"]}, "1 names for 2 policies"),
        ({"policy": ["a", "b"], "adapter": ["x=y"]}, "the only policy"),
        ({"adapter": ["x"]}, "NAME=FOLDER"),
        ({"adapter": ["=y"]}, "NAME=FOLDER"),
        ({"adapter": ["x=y", "x=z"]}, "two adapters"),
        ({"profiles": {"concise": {"verbosity": 0.0}}}, "profile 'concise'"),
        ({"profiles": {"concise": {}}}, "profile 'concise'"),
    ):
        with pytest.raises(ValidationError, match=words):
            ServeConfig.model_validate(wrong)
    config = ServeConfig(adapter=["brief=a/b=c"])
    assert config.adapter_folders == {"brief": Path("a/b=c")}


def test_profiles_come_from_tables_and_from_the_environment(tmp_path: Path) -> None:
    profiles = {"concise": {"helpfulness": 1.0, "verbosity": -0.5}}
    file = tmp_path / "c.toml"
    file.write_text("[profiles.concise]\nhelpfulness = 1\nverbosity = -0.5")
    assert load_settings(ServeConfig, {}, files=[file], environment={}).profiles == profiles
    environment = {"STEERWARD_PROFILES": json.dumps(profiles)}
    assert load_settings(ServeConfig, {}, environment=environment).profiles == profiles
