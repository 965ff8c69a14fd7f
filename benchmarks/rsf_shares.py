"""Where the wall time of a job goes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import table
from benchmarks.rsf_jobs import JobServer
from steerward.protocol.fine_tuning import FINAL_STATUSES, Job

STEPS = ("sampling", "scoring", "selection", "training", "swap", "evaluation")
BEGINNING, REPORT, REST = "until it begins", "report and result file", "rest"
_WATCHED = {"waiting": BEGINNING, "reporting": REPORT, "done": REPORT}
"""Steps that a job does not time itself."""


class Watch:
    """Counts the seconds of steps that a job does not time, to the time between two looks."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._looked_at = time.perf_counter()

    def is_over(self, job: Job) -> bool:
        """Look at a job, and return whether it has ended."""
        now = time.perf_counter()
        self.seconds[_WATCHED.get(job.progress.step, "")] += now - self._looked_at
        self._looked_at = now
        return job.status in FINAL_STATUSES


def measure_shares(
    server: JobServer, prompts: Sequence[str], **rsf: Any
) -> tuple[dict[str, Any], Path]:
    """Run a job to its end; return the seconds of its steps, and its folder.

    Raises:
        RuntimeError: If it fails.
    """
    began = time.perf_counter()
    watch = Watch()
    job = server.create(prompts, **rsf)
    job = server.wait(job.id, watch.is_over)
    wall_s = time.perf_counter() - began
    history = job.progress.history
    seconds = {step: sum(one.seconds.get(step, 0.0) for one in history) for step in STEPS}
    seconds |= {step: watch.seconds[step] for step in (BEGINNING, REPORT)}
    seconds[REST] = wall_s - sum(seconds.values())
    result = {
        "wall_s": wall_s,
        "seconds": seconds,
        "shares": {step: spent_s / wall_s for step, spent_s in seconds.items()},
        "iterations": [one.model_dump() for one in history],
    }
    return result, server.folder(job.id)


def shares_table(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table of `measure_shares`."""
    iterations = result["iterations"]
    sampled = sum(one["sampled"] for one in iterations)
    rows = [
        [step, f"{spent_s:.2f}", f"{result['shares'][step]:.1%}"]
        for step, spent_s in result["seconds"].items()
    ]
    rows.append(["together", f"{result['wall_s']:.2f}", ""])
    title = (
        f"wall time of a job: {len(iterations) - 1} iterations, {sampled:,} samples; scoring is "
        "what went on while nothing was sampled"
    )
    return table(title, ["step", "seconds", "share"], rows)
