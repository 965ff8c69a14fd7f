"""``steerward evaluate`` as it is typed: what it prints and the status it ends with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from steerward.cli.evaluation_settings import BenchmarkConfig
from steerward.cli.main import main
from tests.evaluation.cases import WHOLE, pair, write_lines
from tests.golden_cases import GOLDEN


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "rows.jsonl", WHOLE["reward-bench"])


def run(*arguments: object) -> int:
    fixed = ["--reward-model", str(GOLDEN / "armorm"), "--device", "cpu"]
    return main(["evaluate", *map(str, arguments), *fixed])


def test_table_names_model_rule_and_numbers(
    rows: Path, clean_environment: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("reward-bench", rows) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == "RewardBench, rule 1"
    text = "\n".join(lines)
    assert "23 rows, 23 scored, 0 failed" in text
    assert "measured by score; equal scores: wrong" in text
    assert any(line.startswith("overall, four sections, XSTest by rows  ") for line in lines)
    assert any(line.split()[:1] == ["donotanswer"] for line in lines)
    assert "note: hep-go has 1 rows, the published file 164" in text
    assert "incomplete" not in text.lower()


def test_json_on_standard_output_is_the_report(
    rows: Path, tmp_path: Path, clean_environment: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report.json"
    assert run("reward-bench", rows, "--format", "json", "--out", out) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(out.read_text())


def test_incomplete_result_is_marked_and_ends_with_status_3(
    tmp_path: Path, clean_environment: None, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = pair("hep-go", id="long-7", chosen="4 " * 300)
    rows = write_lines(tmp_path / "rows.jsonl", [*WHOLE["reward-bench"], failing])
    assert run("reward-bench", rows, "--max-input-tokens", 128) == 3
    told = capsys.readouterr()
    assert "INCOMPLETE: 1 of 24 rows could not be scored" in told.out
    assert "(incomplete)" in told.out
    assert "failed: rows.jsonl, row 23 (id long-7), hep-go: input_too_long" in told.out
    assert "incomplete: 1 of 24 rows" in told.err


def test_absent_part_of_the_benchmark_ends_with_status_3(
    tmp_path: Path, clean_environment: None, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = write_lines(tmp_path / "rows.jsonl", WHOLE["reward-bench-2"][:5])
    assert run("reward-bench-2", rows) == 3
    assert "no scores for Ties" in capsys.readouterr().out


def test_markdown_is_a_table_that_others_can_paste(
    rows: Path, clean_environment: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("reward-bench", rows, "--format", "markdown") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "## RewardBench, rule 1"
    assert "| section | value | rows | failed | ties |" in lines
    assert "|---|---:|---:|---:|---:|" in lines
    widths = {line.count("|") for line in lines if line.startswith("|")}
    assert widths == {6}


def test_wrong_file_ends_with_its_reason(
    tmp_path: Path, clean_environment: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("rm-bench", tmp_path / "absent.json") == 1
    assert "there is no file or folder" in capsys.readouterr().err


def test_unknown_benchmark_is_misuse(clean_environment: None) -> None:
    with pytest.raises(SystemExit) as ended:
        run("reward-bench-3", "rows.jsonl")
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"server": "http://h", "reward_model": "pocket"}, "leave one out"),
        ({"model": "armorm"}, "there is no server"),
        ({"server": "host:8000"}, "http://"),
        ({"weights": {"a": 1}, "direction": {"a": 1}}, "leave one out"),
        ({"files": []}, "at least 1"),
    ],
    ids=["both", "model", "url", "steering", "files"],
)
def test_settings_that_contradict_are_refused(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        BenchmarkConfig.model_validate({"benchmark": "rm-bench", "files": ["a.json"], **given})


def test_settings_take_one_file_or_several() -> None:
    several = {"benchmark": "reward-bench", "files": ["a.parquet", "shp.parquet"]}
    assert len(BenchmarkConfig.model_validate(several).files) == 2
    one = BenchmarkConfig.model_validate({**several, "files": "a.parquet"})
    assert one.files == [Path("a.parquet")]


def test_key_and_address_of_a_server_are_cleaned() -> None:
    config = BenchmarkConfig.model_validate(
        {
            "benchmark": "rm-bench",
            "files": "a.json",
            "server": "http://host:8000/v1/",
            "api_key": "secret",
        }
    )
    assert (config.server, config.key) == ("http://host:8000", "secret")
    assert "secret" not in repr(config)


def instructed(folder: Path) -> tuple[Path, Path]:
    rows = write_lines(
        folder / "rows.jsonl",
        [
            {
                "key": 1,
                "prompt": "Say hi without a comma.",
                "instruction_id_list": ["punctuation:no_comma"],
                "kwargs": [{}],
            }
        ],
    )
    responses = write_lines(
        folder / "responses.jsonl", [{"prompt": "Say hi without a comma.", "response": "Hi there"}]
    )
    return rows, responses


def test_instructions_are_checked_in_responses_of_any_policy(
    tmp_path: Path, clean_environment: None, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, responses = instructed(tmp_path)
    out = tmp_path / "report.json"
    command = ["evaluate", "ifeval", str(rows), "--responses", str(responses), "--out", str(out)]
    assert main(command) == 0
    assert "100.0" in capsys.readouterr().out
    assert json.loads(out.read_text())
    assert main(command) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(out.read_text())


@pytest.mark.parametrize("given", [["ifeval"], ["reward-bench", "--responses", "r.jsonl"]])
def test_responses_are_for_instructions_alone(
    given: list[str], clean_environment: None, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *more = given
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", name, "rows.jsonl", *more])
    assert "give them with --responses" in capsys.readouterr().err
