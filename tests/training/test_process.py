"""A process that trains: what it prints, how it ends, and that it ends with its parent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from steerward.protocol.process import END_WITH_PARENT, ORPHANED_STATUS, STORAGE_FULL_STATUS

ROOT = Path(__file__).parents[2]
PROGRAM = """\
import sys, os, time
from pydantic import BaseModel
from steerward.training.process import run_process

class Line(BaseModel):
    value: int

def work(content, tell):
    print("a library's own words")
    os.system("echo and those of a program")
    tell(Line(value=1))
    exec(content.decode())

sys.exit(run_process("program", work))
"""


def run(folder: Path, job: str, *options: str) -> tuple[int, list[str], str]:
    """Return the status, the lines, and what else was printed."""
    path = folder / "job.json"
    path.write_text(job)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), *options],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_lines_are_alone_on_standard_output(tmp_path: Path) -> None:
    status, lines, rest = run(tmp_path, "tell(Line(value=2))")
    assert (status, [json.loads(line) for line in lines]) == (0, [{"value": 1}, {"value": 2}])
    assert "a library's own words" in rest
    assert "and those of a program" in rest


def test_an_error_is_the_last_line(tmp_path: Path) -> None:
    status, lines, rest = run(tmp_path, "raise ValueError(' no such layer ' + 'x' * 5000)")
    assert status == 1
    failure = json.loads(lines[-1])
    assert failure["failed"] == "ValueError"
    assert failure["message"].startswith("no such layer x")
    assert len(failure["message"]) == 2000
    assert not failure["is_storage_full"]
    assert "Traceback" in rest


def test_a_wrong_value_is_told_with_its_place(tmp_path: Path) -> None:
    _, lines, _ = run(tmp_path, "Line.model_validate({'value': 'many'})")
    assert json.loads(lines[-1])["message"].startswith("value: Input should be a valid integer")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, the disk without room")
def test_a_full_disk_has_a_status_of_its_own(tmp_path: Path) -> None:
    status, lines, _ = run(tmp_path, "open('/dev/full', 'w').write('x' * 10_000_000)")
    assert status == STORAGE_FULL_STATUS
    assert json.loads(lines[-1])["is_storage_full"]


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    path.write_text("time.sleep(600)")
    command = [sys.executable, "-c", PROGRAM, str(path), END_WITH_PARENT]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline()
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(timeout=30) == ORPHANED_STATUS
