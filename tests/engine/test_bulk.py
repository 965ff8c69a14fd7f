"""Bulk scoring keeps order, survives bad rows and kills, and never mixes two runs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from steerward.config import ScoreFileConfig
from steerward.engine.bulk import BulkReport, score_file
from steerward.protocol.errors import InvalidRequest, SteerwardError
from tests.golden_cases import GOLDEN, GOLDEN_TOLERANCE, golden_cases


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {"id": f"row-{i}", "prompt": f"Question {i}?", "candidates": ["yes", f"no, {i} times " * 9]}
        for i in range(count)
    ]


def write(path: Path, lines: list[Any]) -> Path:
    text = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
    path.write_bytes(b"\n".join(text) + b"\n")
    return path


def run(source: Path, target: Path, **options: Any) -> BulkReport:
    config = ScoreFileConfig(
        source=source, target=target, reward_model=str(GOLDEN / "armorm"), device="cpu", **options
    )
    return asyncio.run(score_file(config))


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_keep_order_ids_and_scores(tmp_path: Path) -> None:
    cases = golden_cases("armorm")
    source = write(
        tmp_path / "in.jsonl", [{"messages": c["messages"], "id": c["name"]} for c in cases]
    )
    report = run(source, tmp_path / "out.jsonl", explain=True, direction={"objective_0": 1.0})
    assert (report.rows, report.scored, report.failed) == (len(cases), len(cases), 0)
    for i, (row, case) in enumerate(zip(read(tmp_path / "out.jsonl"), cases, strict=True)):
        assert (row["row"], row["id"]) == (i, case["name"])
        (candidate,) = row["candidates"]
        assert candidate["score"] == pytest.approx(case["score"], abs=GOLDEN_TOLERANCE)
        assert candidate["direction_score"] == pytest.approx(candidate["rewards"]["objective_0"])
        assert row["gates"]
    assert not list(tmp_path.glob("*.state.json"))


def test_bad_rows_become_error_rows_and_the_rest_goes_on(tmp_path: Path) -> None:
    good = rows(1)[0]
    bad = [
        b'{"prompt": ',
        b"\xff\xfe",
        b"[1, 2]",
        {"prompt": "x", "candidates": ["too long " * 3000], "id": 7},
        {"prompt": "x"},
    ]
    source = write(tmp_path / "in.jsonl", [good, *bad, good])
    report = run(source, tmp_path / "out.jsonl")
    assert (report.scored, report.failed) == (2, 5)
    out = read(tmp_path / "out.jsonl")
    assert [row["row"] for row in out] == list(range(7))
    assert ["error" in row for row in out] == [False, *[True] * 5, False]
    codes = [row["error"]["code"] for row in out[1:6]]
    assert codes == ["invalid_request"] * 3 + ["input_too_long", "invalid_request"]
    assert out[4]["id"] == 7
    assert out[0]["candidates"] == out[6]["candidates"]


def test_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """SIGKILL in the middle; the second run scores the rest, and all rows are there once."""
    count = 600
    source = write(tmp_path / "in.jsonl", rows(count))
    target = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "steerward", "score", str(source), str(target)]
    options = ["--reward-model", str(GOLDEN / "armorm"), "--device", "cpu"]
    process = subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL)
    try:
        while not (target.exists() and target.stat().st_size > 50_000):
            assert process.poll() is None, "the run ended before it could be killed"
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = len(target.read_bytes().splitlines())
    assert 0 < before < count
    # As if the kill had come in the middle of a row.
    with target.open("ab") as file:
        file.write(b'{"row": 9999, "candi')
    report = run(source, target)
    assert report.resumed >= before - 1
    assert report.resumed + report.scored == count
    assert [row["id"] for row in read(target)] == [f"row-{i}" for i in range(count)]
    once = tmp_path / "once.jsonl"
    run(source, once)
    for resumed, whole in zip(read(target), read(once), strict=True):
        for a, b in zip(resumed["candidates"], whole["candidates"], strict=True):
            assert a["score"] == pytest.approx(b["score"], abs=GOLDEN_TOLERANCE)


def test_finished_output_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", rows(3))
    run(source, tmp_path / "out.jsonl")
    with pytest.raises(InvalidRequest, match="--overwrite"):
        run(source, tmp_path / "out.jsonl")
    assert run(source, tmp_path / "out.jsonl", overwrite=True).scored == 3


def test_unfinished_output_of_another_run_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", rows(3))
    run(source, tmp_path / "out.jsonl")
    state = {"source_sha256": "other", "weight_version": "other"}
    (tmp_path / "out.jsonl.state.json").write_text(json.dumps(state))
    with pytest.raises(InvalidRequest, match="another .*source_sha256, .*weight_version"):
        run(source, tmp_path / "out.jsonl")


def test_missing_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SteerwardError, match="no input file"):
        run(tmp_path / "absent.jsonl", tmp_path / "out.jsonl")
    assert not os.path.exists(tmp_path / "out.jsonl")
