"""What every process that trains has in common: a job file in, lines of JSON out, one clear end.

Standard output carries the lines of the work's protocol and nothing else; what libraries print goes
to standard error.
"""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from pydantic import BaseModel, ValidationError

from steerward.protocol.process import (
    END_WITH_PARENT,
    ORPHANED_STATUS,
    STORAGE_FULL_STATUS,
    ProcessFailure,
)

# A full disk, a full quota, and the largest file that the system lets a process write.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Below, a write that failed without saying why has failed for this.
_NO_ROOM_BYTES = 1 << 20
# The log has all of it.
_LONGEST_MESSAGE = 2000


Tell = Callable[[BaseModel], None]
"""Writes a line to the parent."""
Work = Callable[[bytes, Tell], object]
"""Called with the content of the job file; raises what it fails with."""


def run_process(program: str, work: Work, arguments: list[str] | None = None) -> int:
    """Do the work of a job file that the command line names; return the exit status.

    Args:
        program: As it is started.
        work: Loads the libraries that it needs itself: what may be told before is.
        arguments: In place of those of the command line.
    """
    parser = argparse.ArgumentParser(prog=program)
    parser.add_argument("job", type=Path, help="JSON file of a job")
    parser.add_argument(
        END_WITH_PARENT, action="store_true", help="end as soon as standard input does"
    )
    options = parser.parse_args(arguments)
    if options.end_with_parent:
        # Before the libraries are loaded, which takes seconds.
        threading.Thread(target=_end_with_parent, daemon=True).start()
    output = _own_output()
    _be_quiet()

    def tell(line: BaseModel) -> None:
        output.write(line.model_dump_json() + "\n")
        output.flush()

    try:
        work(options.job.read_bytes(), tell)
        _end_together()
    # The process ends here: whatever happened must be told.
    except Exception as error:
        traceback.print_exc()
        is_full = is_storage_full(error, options.job.parent)
        message = _first_error(error) if isinstance(error, ValidationError) else str(error)
        failure = ProcessFailure(
            failed=type(error).__name__,
            message=message.strip()[:_LONGEST_MESSAGE],
            is_storage_full=is_full,
        )
        tell(failure)
        return STORAGE_FULL_STATUS if is_full else 1
    return 0


def is_storage_full(error: BaseException | None, where: Path) -> bool:
    """Return whether an error came of a full disk.

    Args:
        error: Raised by us, safetensors or torch, which do not all say so in the same way.
        where: That was written to.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return True
        text = str(error)
        if any(os.strerror(code) in text for code in _NO_ROOM):
            return True
        if "PytorchStreamWriter" in text or "inline_container.cc" in text:
            return shutil.disk_usage(where).free < _NO_ROOM_BYTES
        error = error.__cause__ or error.__context__
    return False


def _end_together() -> None:
    """Close what connects processes, if there is more than one: only then torch is loaded."""
    if "torch" in sys.modules:
        from steerward.training.together import end_together

        end_together()


def _first_error(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    # At once: the parent is not there to be told anything.
    os._exit(ORPHANED_STATUS)


def _own_output() -> TextIO:
    """Return standard output; whoever prints from now on prints to standard error."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return lines


def _be_quiet() -> None:
    """Let libraries stay off the network, and on one GPU unless a launcher shares them out."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if "WORLD_SIZE" not in os.environ:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[0]
