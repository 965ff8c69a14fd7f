from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from steerward.judges.sandbox import ISOLATIONS, Limits, Outcome, run
from steerward.judges.sandbox_launcher import _REFUSED_CALLS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox runs on Linux only")

ADD = "def add(a, b):\n    return a + b\n"
RIGHT = "assert add(1, 2) == 3"
QUICK = Limits(cpu_s=2, wall_s=1.0)
IN_FORCE = run("", "").isolation
COLUMN = 0 if platform.machine() == "x86_64" else 1


def needs(isolation: str) -> Callable[..., object]:
    """Skip where the machine does not isolate that; elsewhere it must hold."""
    reason = f"this machine does not isolate {isolation}"
    return pytest.mark.skipif(isolation not in IN_FORCE, reason=reason)


def printed(program: str) -> str:
    """What a program that must pass prints."""
    outcome = run(program, "import sys; sys.stdout.flush()")
    assert outcome.status == "passed", outcome
    return outcome.output.strip()


def test_a_program_passes_its_tests_or_fails_them() -> None:
    assert run(ADD, RIGHT).status == "passed"
    wrong = run(ADD, "assert add(1, 2) == 4")
    assert wrong.status == "failed"
    assert "AssertionError" in wrong.output


@pytest.mark.parametrize(
    "program",
    [
        "def add(:",
        "raise ValueError",
        "import os; os._exit(0)",
        "import sys; sys.exit(0)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import os; os.closerange(3, 64)",
        "import nothing_of_that_name",
        "x = '\ud800'",
    ],
    ids=["syntax", "raises", "_exit", "exit", "kills itself", "closes all", "import", "surrogate"],
)
def test_a_program_that_ends_early_does_not_pass(program: str) -> None:
    """Once, an exit with status 0 before the tests would have been as good as passing them."""
    assert run(program, "pass" if "import" in program else RIGHT).status == "failed"


def test_an_infinite_loop_ends_at_the_wall_clock() -> None:
    start = time.monotonic()
    assert run("while True: pass", "", limits=QUICK).status == "timed_out"
    assert run("import time; time.sleep(60)", "", limits=QUICK).status == "timed_out"
    assert time.monotonic() - start < 20.0


def test_cpu_seconds_are_limited() -> None:
    outcome = run("while True: pass", "", limits=Limits(cpu_s=1, wall_s=30.0))
    assert outcome.status == "failed"


def test_a_memory_bomb_fails_and_the_machine_keeps_its_memory() -> None:
    outcome = run("x = bytearray(4 * 1024**3)", "", limits=Limits(memory_bytes=256 * 1024**2))
    assert outcome.status == "failed"
    assert "MemoryError" in outcome.output


@pytest.mark.skipif(
    os.geteuid() == 0 and "user" not in IN_FORCE, reason="root is bound by no limit of processes"
)
def test_a_fork_bomb_meets_the_limit_of_processes() -> None:
    program = "import os\nwhile True:\n    os.fork()"
    outcome = run(program, "", limits=QUICK)
    assert outcome.status in ("failed", "timed_out")
    count = (
        "import os, time\ncount = 0\n"
        "try:\n"
        "    for _ in range(100):\n"
        "        if os.fork() == 0:\n"
        "            time.sleep(60)\n"
        "        count += 1\n"
        "except BlockingIOError:\n    pass\n"
    )
    assert run(count, "assert count < 16", limits=Limits(processes=16)).status == "passed"


@pytest.mark.skipif(
    not {"processes", "user"} & IN_FORCE, reason="nothing here ends what left its session"
)
def test_what_a_program_leaves_running_ends_with_it(tmp_path: Path) -> None:
    mark = f"left-{os.getpid()}-{time.monotonic_ns()}"
    program = (
        "import ctypes, os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        f"    ctypes.CDLL(None).prctl(15, {mark[-15:].encode()!r}, 0, 0, 0)\n"
        "    time.sleep(60)\n"
    )
    assert run(program, "").status == "passed"
    names = subprocess.run(["ps", "-eo", "comm"], capture_output=True, text=True, check=True)
    assert mark[-15:] not in names.stdout


def test_stdin_is_empty_and_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    assert "EOFError" in run("input()", "").output
    assert printed("import os; print(sorted(os.environ))") in ("[]", "['LC_CTYPE']")
    assert printed("import sys; print(sys.argv, __name__)") == "['program'] program"


def test_endless_output_is_cut_and_ends() -> None:
    outcome = run("while True: print('x' * 1000)", "", limits=Limits(wall_s=0.5, output_bytes=100))
    assert outcome.status == "timed_out"
    assert outcome.output == "x" * 100


def test_only_the_standard_library_can_be_imported() -> None:
    assert "ModuleNotFoundError" in run("import pytest", "").output
    assert run("import decimal, json, dataclasses, hashlib, sqlite3, ssl", "").status == "passed"


def test_a_class_finds_the_module_that_it_is_of() -> None:
    program = (
        "from __future__ import annotations\nimport dataclasses, typing\n"
        "@dataclasses.dataclass\nclass A:\n    b: int\n"
    )
    assert run(program, "assert typing.get_type_hints(A) == {'b': int}").status == "passed"


def test_a_file_may_not_grow_beyond_its_limit() -> None:
    program = "open('big', 'wb').write(bytes(1024**2))"
    assert run(program, "").status == "passed"
    assert run(program, "", limits=Limits(file_bytes=1024)).status == "failed"


SHARED = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
for _ in range(40):
    segment = libc.shmget(0, 16 * 1024**2, 0o1600)
    if segment < 0:
        raise OSError(ctypes.get_errno(), 'shmget')
    held = libc.shmat(segment, None, 0)
    ctypes.memset(held, 1, 16 * 1024**2)
    libc.shmdt(ctypes.c_void_p(held))
"""
IN_MEMORY = """
import os
files = [os.memfd_create('x') for _ in range(40)]
for file in files:
    os.write(file, bytes(8 * 1024**2))
"""


@needs("system_calls")
@pytest.mark.parametrize("program", [SHARED, IN_MEMORY], ids=["shared memory", "files in memory"])
def test_memory_that_no_limit_counts_is_refused(program: str) -> None:
    """Once, both held more than `memory_bytes`, and segments outlived the program."""
    before = Path("/proc/sysvipc/shm").read_text()
    outcome = run(program, "", limits=Limits(memory_bytes=256 * 1024**2))
    assert outcome.status == "failed"
    assert "PermissionError" in outcome.output
    assert Path("/proc/sysvipc/shm").read_text() == before


@needs("system_calls")
@pytest.mark.parametrize("name", ["unshare", "mount", "semget", "msgget", "add_key"])
def test_calls_that_no_program_needs_are_refused(name: str) -> None:
    program = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"assert libc.syscall({_REFUSED_CALLS[name][COLUMN]}, 0, 0, 0, 0, 0) == -1\n"
        "assert ctypes.get_errno() == 1, ctypes.get_errno()\n"
    )
    assert run(program, "").status == "passed"


def test_processes_threads_and_subprocesses_still_start() -> None:
    program = (
        "import subprocess, threading\n"
        "thread = threading.Thread(target=int)\nthread.start()\nthread.join()\n"
        "subprocess.run(['/bin/sh', '-c', 'exit 0'], check=True)\n"
    )
    assert run(program, "").status == "passed"


@needs("files")
def test_nothing_outside_can_be_written_or_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    tmp_path.chmod(0o777)
    secret.chmod(0o666)
    assert "FileNotFoundError" in run(f"open({str(secret)!r})", "").output
    assert "Error" in run(f"open({str(tmp_path / 'new')!r}, 'w')", "").output
    assert "Error" in run("open('/usr/new', 'w')", "").output
    assert not (tmp_path / "new").exists()
    assert printed("import os; print(os.getcwd(), os.listdir())") == "/tmp []"


@needs("files")
def test_files_together_do_not_fill_the_memory() -> None:
    program = "for i in range(64):\n    open(str(i), 'wb').write(bytes(1024**2))"
    assert "No space" in run(program, "", limits=Limits(file_bytes=2 * 1024**2)).output


def test_a_run_leaves_no_folder_and_no_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run("open('x', 'w').write('x')", "").status == "passed"
    assert run("while True: pass", "", limits=QUICK).status == "timed_out"
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


@needs("network")
def test_there_is_no_network() -> None:
    program = "import socket\nsocket.create_connection(('127.0.0.1', 9), 1)"
    assert "unreachable" in run(program, "").output


@needs("processes")
def test_other_processes_cannot_be_seen() -> None:
    outcome = run(f"import os; os.kill({os.getpid()}, 0)", "")
    assert "ProcessLookupError" in outcome.output


@needs("user")
def test_the_program_is_nobody() -> None:
    assert int(printed("import os; print(os.getuid())")) >= 30_000


def test_what_cannot_be_isolated_is_not_run_if_it_must_be() -> None:
    outcome = run("print('ran')", "", must_isolate=("a kind that there is not",))  # type: ignore[arg-type]
    assert outcome.status == "not_started"
    assert "does not isolate" in outcome.output
    assert "ran" not in outcome.output
    assert run("", "", must_isolate=tuple(IN_FORCE)).status == "passed"  # type: ignore[arg-type]


def test_a_sandbox_that_cannot_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "steerward.judges.sandbox._INTERPRETER", ("/nonexistent/python", "-I", "-S")
    )
    assert run(ADD, RIGHT) == Outcome(
        "not_started", "the sandbox could not be started: No such file or directory"
    )


def test_the_isolation_that_is_told_is_known() -> None:
    assert IN_FORCE <= ISOLATIONS
