"""Folders that hold no adapter of the policy are told before anything is loaded."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from steerward.models.source import weight_version
from steerward.protocol.errors import CheckpointRefused, UnknownObjective
from steerward.training.align.modpo.adapter_folders import adapter_version, check_adapters
from tests.policies import save_policy


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("policy") / "base", rule=None)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """Folder with the files of an adapter, below that of a run."""
    folder = tmp_path / "run" / "policy"
    folder.mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).write_text(name)
    return folder


def told(run: Path, **more: str) -> None:
    known = {"method": "mapl", "name": "dpo", "objectives": ["brevity"], **more}
    (run / "settings.json").write_text(json.dumps(known))


def test_adapter_of_the_policy_is_taken(base: Path, adapter: Path) -> None:
    check_adapters({"brevity": adapter}, margins=["kind", "brevity"], base=base)
    told(adapter.parent, base=weight_version(base))
    check_adapters({"brevity": adapter}, margins=["brevity"], base=base)
    check_adapters({}, margins=["brevity"], base=base)


def test_objective_without_a_weight_is_told(base: Path, adapter: Path) -> None:
    with pytest.raises(
        UnknownObjective, match=r"margin_adapters names 'brevity', .* kind, long; give"
    ):
        check_adapters({"brevity": adapter}, margins=["kind", "long"], base=base)


def test_folder_that_holds_no_adapter_is_told(base: Path, adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    for folder, name in (
        (adapter, "adapter_model.safetensors"),
        (base, "adapter_config.json"),
        (adapter / "nowhere", "adapter_config.json"),
    ):
        message = f"{folder} holds no adapter: {name} is missing"
        with pytest.raises(CheckpointRefused, match=re.escape(message)):
            check_adapters({"brevity": folder}, margins=["brevity"], base=base)


def test_adapter_that_a_run_trained_on_another_policy_is_told_with_both(
    base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(adapter.parent, base="0123456789ab")
    message = f"a policy 0123456789ab, and {base} is {weight_version(base)}"
    monkeypatch.chdir(adapter)
    for folder in (adapter, Path()):
        with pytest.raises(CheckpointRefused, match=re.escape(message)):
            check_adapters({"brevity": folder}, margins=["brevity"], base=base)


def test_settings_of_something_else_say_nothing(base: Path, adapter: Path) -> None:
    (adapter.parent / "settings.json").write_text("[]")
    check_adapters({"brevity": adapter}, margins=["brevity"], base=base)
    told(adapter.parent)
    check_adapters({"brevity": adapter}, margins=["brevity"], base=base)
    told(adapter.parent, base="0123456789ab")
    moved = adapter.rename(adapter.parent / "copied")
    check_adapters({"brevity": moved}, margins=["brevity"], base=base)


def test_version_is_of_what_the_files_hold(adapter: Path) -> None:
    before = adapter_version(adapter)
    (adapter / "README.md").write_text("a card")
    assert adapter_version(adapter) == before
    (adapter / "adapter_config.json").write_text("other")
    assert adapter_version(adapter) != before
