"""``steerward jobs samples``: what a job has drawn, as it is or as other trainers read it."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from steerward.cli.http import ServerConnection, connect, path_of
from steerward.cli.job_settings import JobSamplesConfig
from steerward.protocol.conditioning import ConditioningRule
from steerward.protocol.errors import InvalidRequest, NotFound, SteerwardError
from steerward.protocol.fine_tuning import Job
from steerward.protocol.policies import PolicyCard
from steerward.protocol.scoring import ModelList


def run_samples(config: JobSamplesConfig) -> None:
    """Download the samples of a job.

    Raises:
        InvalidRequest: If the job keeps none, and others are to learn from them.
        NotFound: If the job has written none, or its policy is not served.
        DatasetRefused: If a file cannot be turned into the format.
        SteerwardError: If the file cannot be written.
    """
    with connect(config) as connection:
        job = connection.get(path_of("fine_tuning", "jobs", config.job), Job)
        if not job.result_files:
            raise NotFound(
                f"job {job.id} is {job.status} and has no result file; it writes one when it ends"
            )
        if config.format != "results" and not job.progress.iterations:
            raise InvalidRequest(
                f"job {job.id} keeps no samples, but its log; take --format results"
            )
        with _target(config.out) as target:
            if config.format == "results":
                _download(connection, job, target)
            else:
                _convert(connection, job, target, as_pairs=config.format == "dpo")
    if config.out is not None:
        print(f"samples -> {config.out}", file=sys.stderr)


def _download(connection: ServerConnection, job: Job, target: BinaryIO) -> None:
    for result in job.result_files:
        connection.download(path_of("files", result, "content"), target)


def _convert(connection: ServerConnection, job: Job, target: BinaryIO, *, as_pairs: bool) -> None:
    """Write what another trainer learns from."""
    # Needs Arrow, which the other commands do without.
    from steerward.jobs.rsf.export import dpo_pairs, samples_of, sft_rows

    rule = _rule(connection, job)
    convert = dpo_pairs if as_pairs else sft_rows
    # Only half of it is here when the first line is.
    with tempfile.TemporaryFile() as results:
        _download(connection, job, results)
        results.seek(0)
        lines = (line.decode("utf-8") for line in results)
        for row in convert(samples_of(lines), rule):
            target.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def _rule(connection: ServerConnection, job: Job) -> ConditioningRule:
    """Return how the policy of a job reads a direction."""
    cards = connection.get(path_of("models"), ModelList).data
    for name in (job.fine_tuned_model, job.model):
        for card in cards:
            if card.id == name and isinstance(card, PolicyCard) and card.conditioning is not None:
                return card.conditioning
    raise NotFound(
        f"the server has no policy {job.model!r} that reads directions, whose words belong into "
        "each row; start it with the policy of the job, or take --format results"
    )


@contextmanager
def _target(out: Path | None) -> Iterator[BinaryIO]:
    """Give where rows are written: a file that appears when it is whole, or standard output."""
    if out is None:
        with _standard_output() as target:
            yield target
        return
    # Half a file must not look like a whole one.
    part = out.with_name(f"{out.name}.part")
    try:
        with part.open("wb") as target:
            yield target
        part.replace(out)
    except OSError as error:
        raise SteerwardError(
            f"cannot write {out}: {error.strerror or error}; give another --out"
        ) from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _standard_output() -> Iterator[BinaryIO]:
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Whoever reads has seen enough; Python would complain once more when it closes the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
