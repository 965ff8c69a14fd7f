"""Any module that trains is listened to, and its end is told with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from steerward.jobs.process import TrainingProcess
from steerward.protocol.errors import StorageFull, TrainingFailed

pytestmark = pytest.mark.anyio

MODULE = """\
import json, os, signal, sys
job = json.load(open(sys.argv[1]))
sys.stderr.write("a library's own words\\n\\n")
sys.stderr.flush()
print(json.dumps({"step": 1}), flush=True)
exec(job["code"])
"""


class Job(BaseModel):
    code: str


@pytest.fixture
def process(tmp_path: Path) -> TrainingProcess:
    (tmp_path / "a_module_that_trains.py").write_text(MODULE)
    environment = {"PYTHONPATH": str(tmp_path)}
    return TrainingProcess("a_module_that_trains", environment=environment)


async def heard(process: TrainingProcess, folder: Path, code: str) -> list[bytes]:
    lines: list[bytes] = []
    await process.run(Job(code=code), folder / "work", lines.append)
    return lines


async def test_lines_are_heard_one_by_one(process: TrainingProcess, tmp_path: Path) -> None:
    lines = await heard(process, tmp_path, "print('x' * 1_000_000)")
    assert lines == [b'{"step": 1}\n', b"x" * 1_000_000 + b"\n"]
    assert "a library's own words" in (tmp_path / "work" / "trainer.log").read_text()


@pytest.mark.parametrize(
    ("code", "reason", "was_killed"),
    [
        ("sys.exit(3)", "with status 3: a library's own words; log: ", False),
        ("os.kill(os.getpid(), signal.SIGKILL)", r"killed by signal 9: out of memory\?", True),
        ("os.kill(os.getpid(), signal.SIGTERM)", "killed by signal 15: a library's", True),
        (
            """print('{"failed":"Refused","message":"no rows"}'); sys.exit(1)""",
            "with status 1: Refused: no rows; log: ",
            False,
        ),
    ],
    ids=["status", "killed", "terminated", "told"],
)
async def test_an_end_is_told_with_its_reason(
    process: TrainingProcess, tmp_path: Path, code: str, reason: str, was_killed: bool
) -> None:
    with pytest.raises(TrainingFailed, match=reason) as caught:
        await heard(process, tmp_path, code)
    assert caught.value.was_killed is was_killed


async def test_a_full_disk_is_an_error_of_its_own(process: TrainingProcess, tmp_path: Path) -> None:
    with pytest.raises(StorageFull, match="make room, then resume the job"):
        await heard(process, tmp_path, "sys.exit(75)")
