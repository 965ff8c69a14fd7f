"""Training in a process of its own: started, listened to, killed with the job or the server.

What all of them have in common is in `steerward.protocol.process`. This side loads no machine
learning library.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from pydantic import BaseModel, ValidationError

from steerward.jobs.disk import is_out_of_room
from steerward.protocol.errors import SteerwardError, StorageFull, TrainingFailed
from steerward.protocol.process import (
    END_WITH_PARENT,
    JOB_FILE,
    LOG_FILE,
    STORAGE_FULL_STATUS,
    ProcessFailure,
)

Hear = Callable[[bytes], None]
"""Takes a line of a process that is no failure."""

_NEEDED = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "matplotlib")
# Of a line: metrics have names of any length.
_LONGEST_LINE_BYTES = 1 << 24
# Of the log's end, where a process that could say nothing more has said why.
_LOG_TAIL_BYTES = 8192
_LONGEST_REASON = 500


def needed_packages_missing() -> list[str]:
    """Return the names of packages that training needs and that are not installed."""
    return [name for name in _NEEDED if find_spec(name) is None]


class TrainingProcess:
    """Runs a module of ours that trains, once or several times after another.

    Args:
        module: Name of the module.
        accelerate_config: File for `accelerate launch`; None starts one process without it.
        environment: Variables to add to those of this process, for example OMP_NUM_THREADS.
        keeps_open: File descriptors that the process inherits: a lock of the job's folder is held
            until all who may write there are gone.
    """

    def __init__(
        self,
        module: str,
        *,
        accelerate_config: Path | None = None,
        environment: Mapping[str, str] | None = None,
        keeps_open: Sequence[int] = (),
    ) -> None:
        self._module = module
        self._accelerate_config = accelerate_config
        self._environment = dict(environment or {})
        self._keeps_open = tuple(keeps_open)

    async def run(self, job: BaseModel, work: Path, hear: Hear) -> None:
        """Train to the end; if cancelled, the process is killed before this returns.

        Args:
            job: That the process is given.
            work: Folder for its job file and log; made if it is missing.
            hear: Is told each line.

        Raises:
            StorageFull: If there was no room to write.
            TrainingFailed: If the process failed for another reason.
        """
        try:
            work.mkdir(parents=True, exist_ok=True)
            path = work.resolve() / JOB_FILE
            path.write_text(job.model_dump_json(indent=2), encoding="utf-8")
            log = (work / LOG_FILE).open("ab")
        except OSError as error:
            cls = StorageFull if is_out_of_room(error) else TrainingFailed
            raise cls(f"{work} cannot be written to: {error.strerror}") from error
        with log:
            async with self._process(path, log.fileno()) as process:
                failure = await _listen(process, hear)
                status = await process.wait()
        if status:
            raise _failed(status, failure, work / LOG_FILE)

    @asynccontextmanager
    async def _process(self, job: Path, log: int) -> AsyncIterator[asyncio.subprocess.Process]:
        """Give the running process; when the block is left, the process and its own are gone."""
        read_end, write_end = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command(job),
                # It ends with the pipe, and the pipe with this process, however that ends.
                stdin=read_end,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, **self._environment, "HF_HUB_OFFLINE": "1"},
                start_new_session=True,
                pass_fds=self._keeps_open,
                limit=_LONGEST_LINE_BYTES,
            )
        except BaseException:
            os.close(write_end)
            raise
        finally:
            os.close(read_end)
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                # Also what a launcher has started and not waited for.
                os.killpg(process.pid, signal.SIGKILL)
            os.close(write_end)
            await _gone(process)

    def _command(self, job: Path) -> Sequence[str]:
        launcher: list[str] = []
        if self._accelerate_config is not None:
            config = str(self._accelerate_config.resolve())
            launcher = ["-m", "accelerate.commands.launch", "--config_file", config]
        return [sys.executable, *launcher, "-m", self._module, str(job), END_WITH_PARENT]


async def _listen(process: asyncio.subprocess.Process, hear: Hear) -> ProcessFailure | None:
    """Pass lines on; return why the process failed, if it says so."""
    assert process.stdout is not None
    failure: ProcessFailure | None = None
    async for line in process.stdout:
        told = _failure(line)
        failure = told or failure
        if told is None:
            hear(line)
    return failure


def _failure(line: bytes) -> ProcessFailure | None:
    if not line.startswith(b'{"failed":'):
        return None
    with suppress(ValidationError):
        return ProcessFailure.model_validate_json(line)
    return None


async def _gone(process: asyncio.subprocess.Process) -> None:
    """Wait for a killed process, whoever cancels this meanwhile."""
    waiting = asyncio.ensure_future(process.wait())
    cancelled: asyncio.CancelledError | None = None
    while not waiting.done():
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


def _failed(status: int, failure: ProcessFailure | None, log: Path) -> SteerwardError:
    is_full = status == STORAGE_FULL_STATUS or (failure is not None and failure.is_storage_full)
    if is_full:
        reason = f": {failure.message}" if failure else ""
        return StorageFull(
            f"the disk that holds {log.parent} is full{reason}; make room, then resume the job; "
            f"log: {log}"
        )
    if failure is not None:
        reason = f"{failure.failed}: {failure.message}"
    elif status == -signal.SIGKILL:
        reason = "killed by signal 9: out of memory?"
    elif status < 0:
        reason = f"killed by signal {-status}: {_last_line(log)}"
    else:
        reason = _last_line(log)
    ended = "" if status < 0 else f" with status {status}"
    error = TrainingFailed(f"fine-tuning ended{ended}: {reason[:_LONGEST_REASON]}; log: {log}")
    error.was_killed = status < 0
    return error


def _last_line(log: Path) -> str:
    """Return the last line of a log in which something stands."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
        lines = file.read().decode("utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
