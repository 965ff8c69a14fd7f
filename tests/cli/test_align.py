"""``steerward align`` as it is typed, with a reward model that is loaded here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from steerward.cli.main import main
from steerward.training.align.run_folder import read_run, read_settings
from tests.golden_cases import GOLDEN
from tests.policies import save_policy

ARMORM = str(GOLDEN / "armorm")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_policy(tmp_path_factory.mktemp("align") / "base", rule=None))


@pytest.fixture
def rows(tmp_path: Path) -> str:
    path = tmp_path / "rows.jsonl"
    lines = ({"prompt": f"{i}?", "chosen": f"Yes, {i}.", "rejected": "No."} for i in range(20))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_a_sweep_trains_a_policy_for_each_weight_with_margins_computed_once(
    base: str, rows: str, tmp_path: Path, clean_environment: None
) -> None:
    out = tmp_path / "sweep"
    command = ["align", "modpo", rows, "--base", base, "--local", ARMORM, "--out", str(out)]
    command += ["--margins", '{"objective_3": 2}', "--sweep", "0.5", "--sweep", "1"]
    command += ["--batch-size", "9", "--max-tokens", "6", "--evaluation-prompts", "1"]
    assert main(command) == 0
    assert read_settings(out / "w0.5").name == "modpo w0.5"
    half, whole = ((read_settings(out / name).model_extra or {}) for name in ("w0.5", "w1"))
    assert half["weights"] == {"objective_3": 0.5}
    assert whole["weights"] == {"objective_3": 0.0}
    assert (out / "w1" / "policy" / "model.safetensors").is_file()
    margins = (out / "margins.jsonl").read_bytes()
    assert len(margins.splitlines()) >= 2 * len(read_run(out / "w1").log)
    report = tmp_path / "report.html"
    assert main(["align", "report", str(out / "w0.5"), str(out / "w1"), "--out", str(report)]) == 0
    assert "objective_3" in report.read_text()
    assert (out / "margins.jsonl").read_bytes() == margins


def test_margins_from_adapters_ask_no_server(
    base: str, rows: str, tmp_path: Path, clean_environment: None
) -> None:
    """As in the paper: the adapter that DPO trained on one objective is the other's margin."""
    # Nobody listens there.
    shared = [rows, "--base", base, "--server", "http://127.0.0.1:9", "--evaluation-prompts", "0"]
    dpo = ["align", "mapl", *shared, "--lambda-intra", "0", "--lambda-inter", "0"]
    dpo += ["--method", "lora", "--learning-rate", "1e-2", "--beta", "0.2"]
    assert main([*dpo, "--out", str(tmp_path / "dpo")]) == 0
    adapter = tmp_path / "dpo" / "policy"
    command = ["align", "modpo", *shared, "--margins", '{"brevity": 2}', "--margin-beta", "0.2"]
    command += ["--margin-adapters", json.dumps({"brevity": str(adapter)})]
    assert main([*command, "--out", str(tmp_path / "run"), "--sweep", "0.5", "--sweep", "1"]) == 0
    margins = tmp_path / "run" / "margins.jsonl"
    assert len(margins.read_text().splitlines()) == 40
    half = tmp_path / "run" / "w0.5"
    told: Any = read_settings(half).model_extra
    assert told["weights"] == {"brevity": 0.5}
    assert told["margin_beta"] == 0.2
    assert read_run(half).log[0].metrics["modpo/margin"] != 0.0


def test_an_adapter_that_was_trained_on_another_base_is_told(
    base: str,
    rows: str,
    tmp_path: Path,
    clean_environment: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    adapter = tmp_path / "dpo" / "policy"
    adapter.mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (adapter / name).touch()
    told = {"method": "mapl", "name": "dpo", "objectives": ["brevity"], "base": "0123456789ab"}
    (adapter.parent / "settings.json").write_text(json.dumps(told))
    command = ["align", "modpo", rows, "--base", base, "--out", str(tmp_path / "run")]
    command += ["--margins", '{"brevity": 1}']
    assert main([*command, "--margin-adapters", json.dumps({"brevity": str(adapter)})]) == 1
    assert "was trained on a policy 0123456789ab" in capsys.readouterr().err
    assert main([*command, "--margin-adapters", json.dumps({"charm": str(adapter)})]) == 1
    assert "margin_adapters names 'charm'" in capsys.readouterr().err


def test_mapl_asks_no_server_where_no_objective_is_logged(
    base: str, tmp_path: Path, clean_environment: None, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "pairs.jsonl"
    pairs = (
        {"prompt": f"{i}?", "chosen": "yes it is" + "!" * i, "rejected": f"No, by no means {i}"}
        for i in range(20)
    )
    rows.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    out = tmp_path / "run"
    # Nobody listens there.
    command = ["align", "mapl", str(rows), "--base", base, "--server", "http://127.0.0.1:9"]
    command += ["--out", str(out), "--min-instructions", "1", "--max-instructions", "1"]
    command += ["--held-out-kinds", "punctuation:no_comma", "--max-tokens", "6"]
    command += ["--held-out-kinds", "steerward:no_digits", "--evaluation-prompts", "1"]
    assert main(command) == 0
    told: Any = read_settings(out).model_extra
    assert told["held_out_kinds"] == ["punctuation:no_comma", "steerward:no_digits"]
    assert (out / "policy" / "model.safetensors").is_file()
    told_to_people = capsys.readouterr()
    assert "held-out prompts: instructions_followed +" in told_to_people.out
    assert "no reward is asked for, so --server does nothing" in told_to_people.err


def test_judges_come_from_a_file_of_tasks(
    base: str, rows: str, tmp_path: Path, clean_environment: None
) -> None:
    tasks = tmp_path / "tasks.toml"
    tasks.write_text(
        '[tasks.chat]\nreward = "objective_2"\noptimizer = "crraft"\n'
        'judges = [{type = "length", unit = "characters", minimum = 0}]\n'
    )
    out = tmp_path / "run"
    command = ["align", "cgpo", rows, "--base", base, "--local", ARMORM, "--out", str(out)]
    command += ["--config", str(tasks), "--steps", "1", "--prompts-per-step", "2"]
    command += ["--group-size", "2", "--max-tokens", "6", "--evaluation-prompts", "1"]
    assert main(command) == 0
    run = read_run(out)
    assert run.settings.objectives == ("objective_2", "satisfied")
    assert run.log[0].metrics["cgpo/chat/passed/length"] == 1.0


@pytest.mark.parametrize("name", ["grpo", "pama", "cgpo", "modpo", "mapl", "report"])
def test_help_teaches(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["align", name, "--help"])
    told = capsys.readouterr().out
    assert f"steerward align {name}" in told
    assert "Examples:" in told


def test_a_file_that_is_not_there_is_told(
    tmp_path: Path, clean_environment: None, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["align", "grpo", str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "run")]
    assert main(command) == 1
    assert "there is no file" in capsys.readouterr().err


def test_a_judge_that_is_unknown_is_told_before_training(
    base: str, rows: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["align", "cgpo", rows, "--base", base, "--local", ARMORM]
    command += ["--out", str(tmp_path / "run"), "--steps", "1", "--max-tokens", "6"]
    command += ["--tasks", '{"chat": {"reward": "objective_2", "judges": [{"type": "lengthy"}]}}']
    assert main(command) == 1
    assert "lengthy" in capsys.readouterr().err
