"""``steerward rsf`` with a real server on a port, a tiny policy, and a real trainer."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from steerward.cli.main import main
from steerward.config import ServeConfig
from steerward.engine.loading import load_engines
from steerward.jobs.rsf.samples import read_samples
from steerward.jobs.rsf.workspace import IterationFolder
from steerward.metrics import Metrics
from steerward.models.source import weight_version
from steerward.policy.loading import load_policies
from steerward.server.app import create_app
from tests.cli.conftest import listening
from tests.golden_cases import GOLDEN
from tests.policies import ARMORM_RULE, save_policy
from tests.rsf_jobs import SETTINGS, prompt_lines

pytestmark = pytest.mark.usefixtures("clean_environment")

SMALL = {**SETTINGS, "iterations": 1, "evaluation_prompts": 2}


@dataclass(frozen=True, slots=True)
class Place:
    """Files of a run, and the server that it asks."""

    url: str
    policy: Path
    prompts: Path
    out: Path

    def arguments(self, *options: str, rsf: dict[str, Any] | None = None) -> list[str]:
        """Return a command line; options come last and win."""
        return [
            *("rsf", str(self.prompts), "--server", self.url, "--base", str(self.policy)),
            *("--out", str(self.out), "--rsf", json.dumps({**SMALL, **(rsf or {})}), *options),
        ]

    def models(self) -> dict[str, dict[str, Any]]:
        """Return what the server says of its models, by name."""
        data = httpx.get(f"{self.url}/v1/models").json()["data"]
        return {card["id"]: card for card in data}

    @property
    def iteration(self) -> IterationFolder:
        return IterationFolder(self.out / "iteration-001")


@contextmanager
def serving(
    folder: Path, *, policies: Sequence[Path], reward_models: Sequence[str] = ("armorm",)
) -> Iterator[Place]:
    """Serve policies, and ArmoRM under each name; weights may be loaded from the folder."""
    config = ServeConfig.model_validate(
        {
            "reward_model": [str(GOLDEN / "armorm")] * len(reward_models),
            "name": list(reward_models),
            "policy": [str(policy) for policy in policies],
            "device": "cpu",
            "policy_device": "cpu",
            "prefix_cache_bytes": 0,
            "state_dir": folder / "state",
            "jobs": False,
            "weights_dir": [folder],
        }
    )
    metrics = Metrics()
    engines = load_engines(config, metrics)
    served = load_policies(config, taken=list(engines))
    prompts = folder / "prompts.jsonl"
    prompts.write_bytes(prompt_lines(40))
    with listening(create_app(config, engines, served, metrics), lifespan="on") as url:
        wait(lambda: httpx.get(f"{url}/readyz").status_code == 200)
        yield Place(url, policies[0], prompts, folder / "run")


def wait(reached: Any, *, wait_s: float = 90.0) -> None:
    deadline = time.monotonic() + wait_s
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    policy = save_policy(tmp_path / "tiny", rule=ARMORM_RULE)
    with serving(tmp_path, policies=[policy]) as found:
        yield found


def interrupt_at(path: Path) -> None:
    """Press Ctrl-C when a file is there."""

    def watch() -> None:
        wait(path.exists)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """Return why a run is refused."""
    assert main(arguments) == 1
    return capsys.readouterr().err


def test_interrupted_run_goes_on_and_serves_what_it_made(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupt_at(place.iteration.samples)
    assert main(place.arguments()) == 130
    assert not place.iteration.policy.exists()
    drawn = read_samples(place.iteration.samples)
    assert main(place.arguments()) == 0
    printed = capsys.readouterr()
    assert f"policy of iteration 1 -> {place.iteration.policy}" in printed.out
    assert "served as rsf:tiny; report ->" in printed.err
    assert read_samples(place.iteration.samples) == drawn
    assert {row.policy_weight_version for row in drawn} == {weight_version(place.policy)}
    models = place.models()
    assert models["rsf:tiny"]["parent"] == "tiny"
    assert models["rsf:tiny"]["weight_version"] == weight_version(place.iteration.policy)
    assert models["tiny"]["weight_version"] == weight_version(place.policy)
    assert (place.out / "report.html").is_file()

    # What is done is done: the third run only serves it again.
    before = place.iteration.policy.stat().st_mtime_ns
    assert main(place.arguments()) == 0
    assert place.iteration.policy.stat().st_mtime_ns == before
    follow_on(place)
    refuses_what_differs(place, capsys)


def follow_on(place: Place) -> None:
    """Begin another run with what one made: it is served beside the same policy."""
    options = ("--model", "rsf:tiny", "--base", str(place.iteration.policy), "--name", "next")
    out = place.out.with_name("next")
    assert main(place.arguments(*options, "--out", str(out))) == 0
    models = place.models()
    assert models["next"]["parent"] == "tiny"
    rows = read_samples(out / "iteration-001" / "samples.parquet")
    assert {row.policy_weight_version for row in rows} == {models["rsf:tiny"]["weight_version"]}


def refuses_what_differs(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Refuse what would mix two runs, or two policies."""
    capsys.readouterr()
    for options in (("--seed", "3"), ("--name", "other")):
        assert "holds a run with other settings" in refused(capsys, place.arguments(*options))
    place.prompts.write_bytes(prompt_lines(39))
    assert "holds a run with other settings" in refused(capsys, place.arguments())
    taken = place.arguments("--name", "tiny", "--out", str(place.out.with_name("third")))
    assert "'tiny' is the name of another model" in refused(capsys, taken)
    lora = place.arguments(
        *("--model", "rsf:tiny", "--base", str(place.iteration.policy), "--name", "next"),
        rsf={"training": {"method": "lora"}},
    )
    assert "whose weights an adapter would be put on" in refused(capsys, lora)


def test_other_weights_than_those_served_are_refused(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save_policy(tmp_path / "other", rule=ARMORM_RULE, seed=1)
    told = refused(capsys, place.arguments("--base", str(other)))
    assert f"has the weights {weight_version(other)}" in told
    assert f"'tiny' with {weight_version(place.policy)}" in told
    assert not (place.out / "settings.json").exists()
    missing = place.arguments("--validation-file", str(tmp_path / "missing.jsonl"))
    assert "there is no file" in refused(capsys, missing)
    of_a_server = place.arguments(rsf={"sft_file": "file-1", "sft_share": 0.5})
    assert "name the file with --sft-file" in refused(capsys, of_a_server)


def test_of_several_models_one_must_be_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policies = [save_policy(tmp_path / name, rule=ARMORM_RULE) for name in ("one", "two")]
    with serving(tmp_path, policies=policies, reward_models=["first", "second"]) as place:
        assert "several of kind policy: one, two; name one: --model" in refused(
            capsys, place.arguments()
        )
        assert "no policy 'three'; known: one, two" in refused(
            capsys, place.arguments("--model", "three")
        )
        told = refused(capsys, place.arguments("--model", "one"))
        assert "several of kind reward model: first, second" in told
