"""The process that fine-tunes: a job file in, lines of JSON out, a folder at the end.

    python -m steerward.training.sft JOB.json [--end-with-parent]
    accelerate launch --config_file FILE -m steerward.training.sft JOB.json

Standard output carries the lines of `steerward.protocol.sft_work` and nothing else; what libraries
print goes to standard error.
"""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import sys
import threading
import traceback
from pathlib import Path
from typing import TextIO

from pydantic import BaseModel, ValidationError

from steerward.protocol.sft_work import (
    END_WITH_PARENT,
    ORPHANED_STATUS,
    STORAGE_FULL_STATUS,
    SftFailure,
    SftJob,
)

# A full disk, a full quota, and the largest file that the system lets a process write.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Below, a write that failed without saying why has failed for this.
_NO_ROOM_BYTES = 1 << 20
# The log has all of it.
_LONGEST_MESSAGE = 2000


def main(arguments: list[str] | None = None) -> int:
    """Fine-tune; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m steerward.training.sft")
    parser.add_argument("job", type=Path, help="JSON file of a job")
    parser.add_argument(
        END_WITH_PARENT, action="store_true", help="end as soon as standard input does"
    )
    options = parser.parse_args(arguments)
    if options.end_with_parent:
        # Before the libraries are loaded, which takes seconds.
        threading.Thread(target=_end_with_parent, daemon=True).start()
    lines = _own_output()
    _be_quiet()
    return _run(options.job, lines)


def _run(path: Path, lines: TextIO) -> int:
    where = path
    try:
        job = SftJob.model_validate_json(path.read_bytes())
        where = job.work
        from steerward.training.sft_run import fine_tune

        fine_tune(job, lambda progress: _write(lines, progress))
    # The process ends here: whatever happened must be told.
    except Exception as error:
        traceback.print_exc()
        is_full = is_storage_full(error, where)
        message = _first_error(error) if isinstance(error, ValidationError) else str(error)
        failure = SftFailure(
            failed=type(error).__name__,
            message=message.strip()[:_LONGEST_MESSAGE],
            is_storage_full=is_full,
        )
        _write(lines, failure)
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


def _write(lines: TextIO, line: BaseModel) -> None:
    lines.write(line.model_dump_json() + "\n")
    lines.flush()


def _be_quiet() -> None:
    """Let libraries stay off the network, and on one GPU unless a launcher shares them out."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if "WORLD_SIZE" not in os.environ:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[0]


if __name__ == "__main__":
    sys.exit(main())
