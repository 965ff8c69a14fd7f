"""The folder of a job: whole files, and nothing left of killed runs."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from steerward.jobs.disk import write_whole
from steerward.jobs.rsf.workspace import Workspace, remove_folder
from steerward.protocol.fine_tuning import IterationProgress


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def half(building: Path) -> None:
        building.write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_whole(path, half)
    assert not [*tmp_path.iterdir()]
    write_whole(path, lambda building: building.write_text("whole"))
    with pytest.raises(ZeroDivisionError):
        write_whole(path, half)
    assert path.read_text() == "whole"
    assert [*tmp_path.iterdir()] == [path]


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Let the system refuse larger files, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_does_not_fit_leaves_nothing(tmp_path: Path) -> None:
    with largest_file(1000), pytest.raises(OSError, match="File too large"):
        write_whole(tmp_path / "file", lambda path: path.write_bytes(bytes(5000)))
    assert not [*tmp_path.iterdir()]


def test_a_removal_that_was_killed_does_not_hinder_the_next(tmp_path: Path) -> None:
    """A server in a container has the same process id after each start."""
    for _ in range(2):
        folder = tmp_path / "parts"
        folder.mkdir()
        (folder / "file").write_text("")
        (tmp_path / f".parts.{os.getpid()}.removed").mkdir(exist_ok=True)
        (tmp_path / f".parts.{os.getpid()}.removed" / "file").write_text("")
        remove_folder(folder)
        assert not folder.exists()
    remove_folder(tmp_path / "never there")


def test_leftovers_of_killed_runs_are_removed(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    folder = workspace.iteration(1)
    folder.path.mkdir()
    (folder.path / ".samples.parquet.1a2b.building").write_text("half")
    (folder.path / ".policy.building").mkdir()
    (folder.path / ".policy.building" / "model.safetensors").write_text("half")
    (folder.path / ".parts.1a2b.removed").mkdir()
    folder.samples.write_text("whole")
    workspace.tidy()
    assert [*folder.path.iterdir()] == [folder.samples]


def test_only_the_chosen_iteration_keeps_what_training_begins_from(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for number in (1, 2, 3):
        write_whole(workspace.iteration(number).master / "model.safetensors", Path.touch)
        write_whole(workspace.iteration(number).policy / "model.safetensors", Path.touch)
    workspace.prune(chosen=2)
    assert [workspace.iteration(number).master.exists() for number in (1, 2, 3)] == [
        False,
        True,
        False,
    ]
    assert len([*tmp_path.glob("*/policy/model.safetensors")]) == 3


def test_looking_at_an_iteration_makes_no_folder(tmp_path: Path) -> None:
    folder = Workspace(tmp_path).iteration(2)
    assert not folder.has_begun
    folder.progress(2)
    assert not [*tmp_path.iterdir()]


def test_progress_comes_back_and_is_new_at_first(tmp_path: Path) -> None:
    folder = Workspace(tmp_path).iteration(3)
    assert folder.progress(3) == IterationProgress(iteration=3)
    progress = IterationProgress(iteration=3, loss=0.5, seconds={"sampling": 1.5})
    folder.save(progress)
    assert folder.progress(3) == progress
    assert not folder.has_begun
    folder.parts.mkdir()
    assert folder.has_begun
