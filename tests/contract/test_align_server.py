"""``steerward align`` with the rewards of a server, over a real port."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steerward.cli.main import main
from steerward.training.align.run_folder import read_run
from tests.contract.conftest import KEY, Served
from tests.policies import save_policy

SMALL = [
    *("--steps", "1", "--prompts-per-step", "2", "--group-size", "2", "--max-tokens", "6"),
    *("--evaluation-prompts", "1", "--learning-rate", "1e-3"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_policy(tmp_path_factory.mktemp("align") / "base", rule=None)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Hello {i}?"}) + "\n" for i in range(12)))
    return path


def test_named_rewards_come_from_a_server(
    served: Served,
    base: Path,
    prompts: Path,
    tmp_path: Path,
    clean_environment: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    weights = json.dumps({"objective_0": 1, "objective_1": -1})
    command = ["align", "pama", str(prompts), "--base", str(base), "--out", str(tmp_path / "run")]
    command += ["--server", served.url, "--weights", weights, "--logged", "score", *SMALL]
    assert main([*command, "--api-key", "wrong"]) == 1
    assert "key" in capsys.readouterr().err
    assert main([*command, "--api-key", KEY]) == 0
    assert "held-out prompts: objective_0" in capsys.readouterr().out
    run = read_run(tmp_path / "run")
    assert run.settings.objectives == ("objective_0", "less_objective_1", "score")
    assert "rewards/less_objective_1/mean" in run.log[0].metrics


def test_an_objective_that_the_server_does_not_have_is_refused_with_those_it_has(
    served: Served,
    base: Path,
    prompts: Path,
    tmp_path: Path,
    clean_environment: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["align", "grpo", str(prompts), "--base", str(base), "--out", str(tmp_path / "run")]
    command += ["--server", served.url, "--api-key", KEY, "--weights", '{"kindness": 1}', *SMALL]
    assert main(command) == 1
    told = capsys.readouterr().err
    assert "kindness" in told
    assert "objective_0" in told
