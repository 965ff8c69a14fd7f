"""The process that fine-tunes: a job file in, lines of JSON out, a folder at the end.

    python -m steerward.training.sft JOB.json [--end-with-parent]
    accelerate launch --config_file FILE -m steerward.training.sft JOB.json

Its lines are those of `steerward.protocol.sft_work`.
"""

from __future__ import annotations

import sys

from steerward.protocol.sft_work import SftJob
from steerward.training.process import Tell, run_process


def main(arguments: list[str] | None = None) -> int:
    """Fine-tune; return the exit status."""
    return run_process("python -m steerward.training.sft", _work, arguments)


def _work(content: bytes, tell: Tell) -> None:
    job = SftJob.model_validate_json(content)
    from steerward.training.sft_run import fine_tune

    fine_tune(job, tell)


if __name__ == "__main__":
    sys.exit(main())
