"""Bulk scoring keeps order, survives bad rows and kills, and never mixes two runs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from steerward.config import ScoreFileConfig
from steerward.engine import bulk
from steerward.engine.bulk import BulkReport, score_file
from steerward.models.packing import PackedBatch
from steerward.protocol.errors import (
    DeadlineExceeded,
    EngineFailure,
    InvalidDirection,
    InvalidRequest,
    NotReady,
    SteerwardError,
    UnknownObjective,
)
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
    settings = {"reward_model": str(GOLDEN / "armorm"), "device": "cpu", **options}
    return asyncio.run(score_file(ScoreFileConfig(source=source, target=target, **settings)))


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


def test_several_devices_score_as_one_does(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", rows(40))
    run(source, tmp_path / "one.jsonl")
    run(source, tmp_path / "two.jsonl", device="auto", devices=["cpu", "cpu"])
    for one, other in zip(read(tmp_path / "one.jsonl"), read(tmp_path / "two.jsonl"), strict=True):
        assert one["id"] == other["id"]
        for a, b in zip(one["candidates"], other["candidates"], strict=True):
            assert a["score"] == pytest.approx(b["score"], abs=GOLDEN_TOLERANCE)


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


Fault = Callable[[PackedBatch], bool]


def break_passes(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    """Make the forward passes of real engines raise where a fault says so; probes do not."""
    load_engine = bulk.load_engine

    def load_broken(*args: Any, **options: Any) -> Any:
        engine = load_engine(*args, **options)

        def hook(_: Any, inputs: tuple[PackedBatch]) -> None:
            if fault(inputs[0]):
                raise RuntimeError("out of memory")

        engine.model.register_forward_pre_hook(hook)
        return engine

    monkeypatch.setattr(bulk, "load_engine", load_broken)


# Two candidates behind three tokens: what the worker asks a device that has failed.
PROBE_TOKENS = 6


def test_rows_wait_for_the_device_and_none_is_refused(tmp_path: Path) -> None:
    """Far more tokens than the limit: reading waits; rows became errors `overloaded` once."""
    source = write(tmp_path / "in.jsonl", rows(60))
    report = run(source, tmp_path / "out.jsonl", max_queued_tokens=50, max_batch_tokens=64)
    assert (report.scored, report.failed) == (60, 0)


def test_row_without_scores_at_its_deadline_ends_the_run(tmp_path: Path) -> None:
    """Late rows became error rows that no resume scored; by default there is no deadline."""
    source, target = write(tmp_path / "in.jsonl", rows(20)), tmp_path / "out.jsonl"
    with pytest.raises(DeadlineExceeded, match="row 0: .*run the same command again"):
        run(source, target, request_timeout_s=1e-6)
    assert not read(target)
    assert run(source, target).scored == 20


def test_batch_that_fails_is_scored_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device too small for a batch: each row is tried again alone, none becomes an error."""
    break_passes(monkeypatch, lambda batch: batch.num_candidates > 2)
    source, target = write(tmp_path / "in.jsonl", rows(12)), tmp_path / "out.jsonl"
    report = run(source, target)
    assert (report.scored, report.failed) == (12, 0)
    assert [row["id"] for row in read(target)] == [f"row-{i}" for i in range(12)]


def test_dead_device_ends_the_run_and_a_resume_goes_on_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of the failing batch became error rows, and a resume took them for done."""
    count, passes = 30, 0

    def dies(_: PackedBatch) -> bool:
        nonlocal passes
        passes += 1
        return passes > 10

    source, target = write(tmp_path / "in.jsonl", rows(count)), tmp_path / "out.jsonl"
    with monkeypatch.context() as broken:
        break_passes(broken, dies)
        with pytest.raises((EngineFailure, NotReady), match=r"row \d+: ") as caught:
            run(source, target, max_batch_tokens=64)
    written = read(target)
    assert 0 < len(written) < count
    assert not any("error" in row for row in written)
    assert f"row {len(written)}:" in caught.value.message
    report = run(source, target, max_batch_tokens=64)
    assert (report.resumed, report.scored) == (len(written), count - len(written))
    assert [row["row"] for row in read(target)] == list(range(count))


def test_row_that_fails_alone_too_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device goes on for others, but a number that a second try may give is no row."""
    break_passes(monkeypatch, lambda batch: batch.num_tokens > 1000)
    long = {"prompt": "x", "candidates": ["word " * 1200]}
    source = write(tmp_path / "in.jsonl", [*rows(3), long, *rows(3)])
    with pytest.raises(EngineFailure, match="row 3: "):
        run(source, tmp_path / "out.jsonl")
    assert [row["row"] for row in read(tmp_path / "out.jsonl")] == [0, 1, 2]


@pytest.mark.parametrize(
    "line",
    [
        b'{"prompt": "x", "candidates": ["y"], "id": %d}' % 2**70,
        b'{"prompt": "x", "candidates": ["y"], "id": "\\ud800"}',
        b'{"prompt": "x", "candidates": ["y"], "id": %s}' % (b"[" * 300 + b"]" * 300),
        b'{"prompt": "x", "candidates": ["y"], "id": true}',
        b'{"prompt": "x", "candidates": ["y"], "id": null}',
        b'{"prompt": "x", "candidates": ["y"], "\\ud800": 1}',
        b'{"prompt": "x", "candidates": ["\\ud800"]}',
        b"[" * 200_000,
        b'{"id": ' + b"9" * 5000 + b"}",
    ],
    ids=[
        "id over 64 bits",
        "id with a lone surrogate",
        "id of lists",
        "id true",
        "id null",
        "key with a lone surrogate",
        "candidate with a lone surrogate",
        "nested too deep",
        "number too long",
    ],
)
def test_row_that_json_can_hardly_spell_is_an_error_row(tmp_path: Path, line: bytes) -> None:
    """Such a row ended the run, and every resume ended there again."""
    source = write(tmp_path / "in.jsonl", [*rows(1), line, *rows(1)])
    report = run(source, tmp_path / "out.jsonl")
    assert (report.scored, report.failed) == (2, 1)
    (_, bad, _) = read(tmp_path / "out.jsonl")
    assert bad["error"]["code"] == "invalid_request"
    assert bad["row"] == 1
    assert "id" not in bad


@pytest.mark.parametrize("number", [-(2**63), 2**63 - 1, 0])
def test_id_may_be_any_integer_of_64_bits(tmp_path: Path, number: int) -> None:
    source = write(tmp_path / "in.jsonl", [{**rows(1)[0], "id": number}])
    assert run(source, tmp_path / "out.jsonl").scored == 1
    assert read(tmp_path / "out.jsonl")[0]["id"] == number


def test_blank_lines_are_skipped_and_not_counted(tmp_path: Path) -> None:
    one, two = rows(2)
    source = write(tmp_path / "in.jsonl", [b"", one, b"   ", b"", two])
    assert run(source, tmp_path / "out.jsonl").rows == 2
    assert [row["row"] for row in read(tmp_path / "out.jsonl")] == [0, 1]


@pytest.mark.parametrize("link", [None, os.symlink, os.link], ids=["same", "symbolic", "hard"])
def test_input_is_never_the_output(tmp_path: Path, link: Callable[..., None] | None) -> None:
    """`--overwrite` emptied the input when it was the output too."""
    source = target = write(tmp_path / "in.jsonl", rows(2))
    before = source.read_bytes()
    if link is not None:
        link(source, target := tmp_path / "out.jsonl")
    with pytest.raises(InvalidRequest, match="replace the input"):
        run(source, target, overwrite=True)
    assert source.read_bytes() == before


def test_input_is_never_replaced_by_the_state_of_the_output(tmp_path: Path) -> None:
    source = write(tmp_path / "out.jsonl.state.json", rows(2))
    before = source.read_bytes()
    with pytest.raises(InvalidRequest, match="replace the input"):
        run(source, tmp_path / "out.jsonl")
    assert source.read_bytes() == before


def test_output_needs_a_folder(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", rows(1))
    with pytest.raises(InvalidRequest, match="no folder .*absent"):
        run(source, tmp_path / "absent" / "out.jsonl")


@pytest.mark.parametrize(
    ("steering", "error"),
    [
        ({"direction": {"kindness": 1.0}}, UnknownObjective),
        ({"directions": [{"objective_0": 1.0}, {"kindness": 1.0}]}, UnknownObjective),
        ({"weights": {"objective_0": -1.0}}, InvalidDirection),
        ({"direction": {"objective_0": 0.0}}, InvalidDirection),
        ({"direction": {"objective_0": 1.0}, "directions": [{"objective_0": 1.0}]}, InvalidRequest),
        ({"directions": []}, InvalidRequest),
    ],
    ids=["unknown", "unknown in a list", "negative weight", "zero", "both", "none"],
)
def test_steering_that_fits_no_row_is_refused_before_the_output_is_opened(
    tmp_path: Path, steering: dict[str, Any], error: type[SteerwardError]
) -> None:
    """A mistyped objective gave a whole file of error rows."""
    source, target = write(tmp_path / "in.jsonl", rows(2)), tmp_path / "out.jsonl"
    target.write_text("another run's rows\n")
    with pytest.raises(error):
        run(source, target, overwrite=True, **steering)
    assert target.read_text() == "another run's rows\n"


def test_several_directions_score_at_once(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.jsonl", rows(1)), tmp_path / "out.jsonl"
    run(source, target, directions=['{"objective_0": 2.0}', {"objective_1": -1.0}])
    candidate = read(target)[0]["candidates"][0]
    rewards = candidate["rewards"]
    expected = [rewards["objective_0"], -rewards["objective_1"]]
    assert candidate["direction_scores"] == pytest.approx(expected)


def test_missing_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SteerwardError, match="no input file"):
        run(tmp_path / "absent.jsonl", tmp_path / "out.jsonl")
    assert not os.path.exists(tmp_path / "out.jsonl")
