"""What optimisers needed for jobs that have come to their end: users' rows, and checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path

from steerward.jobs.align.running import AlignFolder
from steerward.jobs.custody import sole_use_now
from steerward.jobs.store import JobStore
from steerward.protocol.errors import NotFound
from steerward.protocol.fine_tuning import FINAL_STATUSES


def remove_leftovers(folder: Path, store: JobStore) -> None:
    """Remove rows and checkpoints of jobs that nobody can resume, however they ended.

    What a job that is somebody's still holds is left for the next time.

    Args:
        folder: That holds those of all jobs; may be missing.
        store: Knows how they are.

    Raises:
        NotReady: If the database cannot be used now.
        OSError: If a folder cannot be used.
    """
    for job in sorted(folder.iterdir()) if folder.is_dir() else ():
        files = AlignFolder(job)
        users = (files.rows, files.built_rows, files.checkpoints)
        left = [path for path in users if path.exists()]
        if left and _has_ended(store, job.name):
            with sole_use_now(job) as is_held:
                for path in left if is_held else ():
                    shutil.rmtree(path, ignore_errors=True)


def _has_ended(store: JobStore, job_id: str) -> bool:
    try:
        return store.get(job_id).status in FINAL_STATUSES
    except NotFound:
        return False
