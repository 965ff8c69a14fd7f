"""Runs a program that nobody has read, and its tests, in a process of its own with limits.

What holds on every Linux: `python -I -S` in an empty folder, with an empty environment and a
closed stdin; limits on CPU seconds, address space of each process, size of each file, number of
processes, open files; no core dump; all capabilities given up; a wall clock after which the whole
session is killed; output read up to a limit and thrown away beyond.

What holds only where the kernel lets this user have it, and is told as `Outcome.isolation`:

* `network`: a network namespace with no interface that is up.
* `processes`: a process namespace. The program sees none of the machine's processes, and what it
  left running ends with it. Without it and without `user`, a process that starts a session of its
  own survives.
* `files`: a root of its own with the interpreter, the system's libraries and an empty /tmp in
  memory. Without it, the program reads and writes what its user may.
* `user`: a user that nobody else is. Only root can give it away; the limit on the number of
  processes then counts those of this program alone. Otherwise it counts all of the user's (of a
  namespace, on Linux from 5.14), and does not bind root.
* `messages`: a namespace of System V's messages, semaphores and shared memory, which end with it.
* `system_calls`: a filter that refuses what holds memory which no limit counts and which may
  outlive the program: shared memory of System V, files and secrets in memory, keys, mounts,
  io_uring, and a few more (`_REFUSED_CALLS` of the launcher). Linux on x86_64 and aarch64 has it.
  Without it, `memory_bytes` bounds no program that means to get past it.

What does not hold: the kernel is shared. The memory of several processes together is bounded by
`processes` times `memory_bytes` only, where `system_calls` is in force, and besides it by
`file_bytes` where `files` is; elsewhere by nothing. The tests run in the program's own process: a
program that is written to deceive them can (it may replace what they call, or find them in
memory). One that merely ends early does not pass.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

_LAUNCHER = Path(__file__).with_name("sandbox_launcher.py")
_INTERPRETER = (sys.executable, "-I", "-S", "-B")
_START_TIMEOUT_S = 20.0
_MOST_REPORTED_BYTES = 1024
_CHUNK_BYTES = 64 * 1024

Isolation = Literal["network", "processes", "files", "user", "messages", "system_calls"]
"""What may be isolated beyond what always is."""
ISOLATIONS: frozenset[str] = frozenset(get_args(Isolation))
"""All of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a program may use. The values are ours."""

    cpu_s: int = 5
    """Seconds of CPU of each process."""
    wall_s: float = 10.0
    """Seconds from the program's start to its end."""
    memory_bytes: int = 512 * 1024 * 1024
    """Address space of each process; other memory is refused where `system_calls` are."""
    file_bytes: int = 16 * 1024 * 1024
    """Size of a file, and of all files where these are isolated."""
    processes: int = 16
    """Processes and threads at once."""
    output_bytes: int = 4096
    """Of its output that are kept; the rest is read and thrown away."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program and its tests ended."""

    status: Literal["passed", "failed", "timed_out", "not_started"]
    """`failed`: by an exception, a limit, or an early end. `not_started`: no fault of the
    program's."""
    output: str = ""
    """The beginning of what it wrote, and of the exception that ended it."""
    isolation: frozenset[str] = frozenset()
    """What was isolated, of `Isolation`."""


def run(
    program: str,
    tests: str,
    *,
    limits: Limits | None = None,
    must_isolate: Sequence[Isolation] = (),
) -> Outcome:
    """Run a program and then its tests, which pass unless they raise.

    Args:
        program: Python source; runs as a module called `program`, so not as `__main__`.
        tests: Python source; sees the names of the program.
        limits: What they may use together.
        must_isolate: Without which nothing is run.
    """
    if sys.platform != "linux":
        return Outcome("not_started", "the sandbox runs on Linux only")
    limits = limits or Limits()
    token = secrets.token_hex(16)
    sources = (program, f"{token}\n{tests}")
    try:
        with _started(sources, limits=limits, must_isolate=must_isolate) as watch:
            watch.follow()
    except OSError as error:
        return Outcome("not_started", f"the sandbox could not be started: {error.strerror}")
    return watch.outcome(token)


@contextlib.contextmanager
def _started(
    sources: tuple[str, str], *, limits: Limits, must_isolate: Sequence[Isolation]
) -> Iterator[_Watch]:
    """Start the launcher; kill its session at the end."""
    with contextlib.ExitStack() as stack:
        folder = tempfile.TemporaryDirectory(prefix="steerward-", ignore_cleanup_errors=True)
        stack.enter_context(folder)
        program, tests = [_in_memory(text, stack) for text in sources]
        report, report_end = _pipe(stack)
        output, output_end = _pipe(stack)
        files = {"program": program, "tests": tests, "report": report_end}
        settings = {**dataclasses.asdict(limits), **files, "must_isolate": list(must_isolate)}
        try:
            process = subprocess.Popen(
                [*_INTERPRETER, str(_LAUNCHER), json.dumps(settings)],
                cwd=folder.name,
                env={},
                stdin=subprocess.DEVNULL,
                stdout=output_end,
                stderr=output_end,
                pass_fds=tuple(files.values()),
                start_new_session=True,
            )
        finally:
            os.close(report_end)
            os.close(output_end)
        watch = _Watch(process, report=report, output=output, limits=limits)
        stack.callback(_end, watch)
        yield watch


def _in_memory(text: str, stack: contextlib.ExitStack) -> int:
    """Return a file in memory that holds a text."""
    file = os.memfd_create("source")
    stack.callback(os.close, file)
    # Lone surrogates are no Python, and no reason to stop either.
    with open(file, "wb", closefd=False) as content:
        content.write(text.encode(errors="replace"))
    os.lseek(file, 0, os.SEEK_SET)
    return file


def _pipe(stack: contextlib.ExitStack) -> tuple[int, int]:
    read_end, write_end = os.pipe()
    stack.callback(os.close, read_end)
    os.set_blocking(read_end, False)
    return read_end, write_end


def _end(watch: _Watch) -> None:
    """Kill the session, and whatever the program's user runs beside it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(watch.process.pid, signal.SIGKILL)
    watch.process.wait()
    user = watch.started.get("user")
    if user is not None and "processes" not in watch.isolation:
        command = [*_INTERPRETER, str(_LAUNCHER), json.dumps({"end_user": user})]
        subprocess.run(command, env={}, stdin=subprocess.DEVNULL, check=False)


@dataclass(slots=True)
class _Watch:
    """Reads what a sandbox writes until it has ended or its time is up."""

    process: subprocess.Popen[bytes]
    report: int
    output: int
    limits: Limits
    reported: bytearray = field(default_factory=bytearray)
    written: bytearray = field(default_factory=bytearray)
    is_late: bool = False

    def follow(self) -> None:
        """Read until the end."""
        deadline, has_started = time.monotonic() + _START_TIMEOUT_S, False
        ended = os.pidfd_open(self.process.pid)
        try:
            with selectors.DefaultSelector() as selector:
                for file in (self.report, self.output, ended):
                    selector.register(file, selectors.EVENT_READ)
                while True:
                    if not has_started and self.started:
                        has_started, deadline = True, time.monotonic() + self.limits.wall_s
                    found = selector.select(max(deadline - time.monotonic(), 0.0))
                    ready = {key.fd for key, _ in found}
                    for file in ready - {ended}:
                        if not self._read(file):
                            selector.unregister(file)
                    self.is_late = time.monotonic() >= deadline
                    if ended in ready or self.is_late:
                        break
        finally:
            os.close(ended)
        # What was written between the last reading and the end.
        self._read(self.report)
        self._read(self.output)

    @property
    def started(self) -> dict[str, Any]:
        """What the launcher told before the program ran; empty if it did not run."""
        line, end, _ = self.reported.partition(b"\n")
        return json.loads(line) if end else {}

    @property
    def isolation(self) -> frozenset[str]:
        """What is isolated, as far as is known."""
        return frozenset(self.started.get("isolation", ()))

    def _read(self, file: int) -> bool:
        """Read what is there; return whether more may come."""
        try:
            chunk = os.read(file, _CHUNK_BYTES)
        except BlockingIOError:
            return True
        is_report = file == self.report
        kept = self.reported if is_report else self.written
        most = _MOST_REPORTED_BYTES if is_report else self.limits.output_bytes
        kept.extend(chunk[: most - len(kept)])
        return bool(chunk)

    def outcome(self, token: str) -> Outcome:
        """Return how it ended."""
        written = self.written.decode(errors="replace")
        if not self.started:
            return Outcome("not_started", written)
        if secrets.compare_digest(self.reported.split(b"\n")[1], token.encode()):
            return Outcome("passed", written, self.isolation)
        return Outcome("timed_out" if self.is_late else "failed", written, self.isolation)
