"""Rows and checkpoints of optimisers are gone when nobody can resume their job, and not before."""

from __future__ import annotations

from pathlib import Path

import pytest

from steerward.jobs.align.leftovers import remove_leftovers
from steerward.jobs.custody import sole_use_now
from steerward.jobs.store import JobStore
from tests.jobs.conftest import CreateJob


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


def fill(folder: Path, job: str) -> Path:
    """Make what an optimiser leaves; return the folder of the job."""
    made = folder / job
    for name in ("rows", "run/checkpoints/checkpoint-2", "run/policy"):
        (made / name).mkdir(parents=True)
        (made / name / "file").write_text("x")
    return made


def has_leftovers(job: Path) -> bool:
    assert (job / "run" / "policy" / "file").exists()
    found = {(job / name).exists() for name in ("rows", "run/checkpoints")}
    assert len(found) == 1
    return found.pop()


def test_ended_jobs_leave_neither_rows_nor_checkpoints(
    store: JobStore, create_job: CreateJob, tmp_path: Path
) -> None:
    remove_leftovers(tmp_path / "jobs", store)
    folders = {}
    for status in ("succeeded", "failed", "cancelled", "paused"):
        job = create_job().id
        folders[status] = fill(tmp_path / "jobs", job)
        assert store.acquire("me", models=["pocket-policy"], lease_s=60) is not None
        store.finish(job, "me", status=status)
    folders["queued"] = fill(tmp_path / "jobs", create_job().id)
    # Of another database, or of nobody.
    folders["unknown"] = fill(tmp_path / "jobs", "ftjob-" + "0" * 24)
    folders["other"] = fill(tmp_path / "jobs", "other")

    remove_leftovers(tmp_path / "jobs", store)
    left = [name for name, folder in folders.items() if has_leftovers(folder)]
    assert left == ["paused", "queued", "unknown", "other"]


def test_what_somebody_holds_is_left_for_the_next_time(
    store: JobStore, create_job: CreateJob, tmp_path: Path
) -> None:
    job = create_job().id
    folder = fill(tmp_path / "jobs", job)
    store.request(job, "cancel")
    with sole_use_now(folder) as is_held:
        assert is_held
        remove_leftovers(tmp_path / "jobs", store)
        assert has_leftovers(folder)
    remove_leftovers(tmp_path / "jobs", store)
    assert not has_leftovers(folder)
